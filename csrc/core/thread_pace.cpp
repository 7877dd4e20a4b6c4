#include "core/thread_pace.h"

#include <algorithm>
#include <chrono>
#include <ctime>

namespace rustasr {
namespace {

// A judgement needs this much time of all threads: several time slices of an operating system.
constexpr double kJudged = 0.02;  // s
// One thread alone for this long before all are tried again, four times as long while that goes wrong.
constexpr double kShortestPause = 0.1, kLongestPause = 5.0;  // s
// A spinning thread is always busy: what is missing of its time went to others.
constexpr double kLeastOwn = 0.85, kLeastOfAll = 0.75;

#if defined(CLOCK_THREAD_CPUTIME_ID) && defined(CLOCK_PROCESS_CPUTIME_ID)
double seconds(clockid_t clock) {
    timespec t{};
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
#endif

}  // namespace

ThreadPace::Times ThreadPace::now() {
    using Wall = std::chrono::steady_clock;
    const double wall = std::chrono::duration<double>(Wall::now().time_since_epoch()).count();
#if defined(CLOCK_THREAD_CPUTIME_ID) && defined(CLOCK_PROCESS_CPUTIME_ID)
    return {wall, seconds(CLOCK_THREAD_CPUTIME_ID), seconds(CLOCK_PROCESS_CPUTIME_ID)};
#else  // no such clocks: all of the time is taken to be ours
    return {wall, wall, 1e6 * wall};
#endif
}

int ThreadPace::begin() {
    if (n_threads_ == 1) return 1;
    begun_ = clock_();
    n_now_ = begun_.wall < alone_until_ ? 1 : n_threads_;
    return n_now_;
}

void ThreadPace::end() {
    if (n_now_ == 1) return;
    const Times ended = clock_();
    spent_.wall += ended.wall - begun_.wall;
    spent_.thread += ended.thread - begun_.thread;
    spent_.process += ended.process - begun_.process;
    if (spent_.wall < kJudged) return;
    if (spent_.thread < kLeastOwn * spent_.wall || spent_.process < kLeastOfAll * n_threads_ * spent_.wall) {
        pause_ = std::min(std::max({4 * pause_, kShortestPause, spent_.wall}), kLongestPause + spent_.wall);
        alone_until_ = ended.wall + pause_;
    } else {
        pause_ = 0;
    }
    spent_ = {};
}

}  // namespace rustasr
