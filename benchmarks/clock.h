#pragma once

#include <chrono>
#include <ctime>

namespace rustasr {

/// Seconds since some moment: of this thread's work for one thread, else of the clock on the wall.
inline double seconds(int threads) {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    if (threads == 1) {
        timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    }
#endif
    (void)threads;
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace rustasr
