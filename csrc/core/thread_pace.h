#pragma once
// How many threads the next graph gets. ggml's threads wait for each other after every operation by spinning,
// so where other programs hold a core they burn the very time that the thread they wait for needs: measured
// up to twenty times slower than one thread alone. Results do not depend on the number of threads.

namespace rustasr {

class ThreadPace {
   public:
    /// Seconds: of the clock, and of processor time of this thread and of the whole process.
    struct Times {
        double wall, thread, process;
    };
    using Clock = Times (*)();
    static Times now();

    explicit ThreadPace(int n_threads, Clock clock = now) : n_threads_(n_threads), clock_(clock) {}

    /// Call before a graph: all threads, or one while the machine is crowded.
    int begin();
    /// Call after the same graph.
    void end();

   private:
    int n_threads_;
    Clock clock_;
    int n_now_ = 1;
    Times begun_{};
    Times spent_{};           // by graphs with all threads, since the last judgement
    double alone_until_ = 0;  // s of the clock
    double pause_ = 0;        // s
};

}  // namespace rustasr
