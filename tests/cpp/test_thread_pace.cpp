// ThreadPace on a clock of the test's own.

#include "check.h"
#include "core/thread_pace.h"

using rustasr::ThreadPace;

namespace {

ThreadPace::Times clock_now{};
ThreadPace::Times read_clock() { return clock_now; }

// A graph of `wall` seconds in which this thread and the process had these shares of it. Returns its threads.
int graph(ThreadPace& pace, double wall, double thread_share, double process_share) {
    const int n = pace.begin();
    clock_now.wall += wall;
    clock_now.thread += wall * (n == 1 ? 1 : thread_share);
    clock_now.process += wall * (n == 1 ? 1 : process_share);
    pace.end();
    return n;
}

}  // namespace

TEST_CASE("thread pace: a machine of our own gives every thread") {
    clock_now = {1000, 0, 0};
    ThreadPace pace(2, read_clock);
    for (int i = 0; i < 100; ++i) CHECK(graph(pace, 0.005, 1.0, 2.0) == 2);
}

TEST_CASE("thread pace: who lost its core to others works alone for a while, longer each time") {
    clock_now = {1000, 0, 0};
    ThreadPace pace(2, read_clock);
    CHECK(graph(pace, 0.05, 0.5, 1.0) == 2);
    int alone = 0;
    while (graph(pace, 0.01, 0.5, 1.0) == 1) ++alone;
    CHECK(alone >= 9 && alone <= 11);         // 0.1 s; the graph that ended it ran with two again ...
    CHECK(graph(pace, 0.05, 0.5, 1.0) == 2);  // ... and with this one there is enough to judge
    int longer = 0;
    while (graph(pace, 0.01, 0.5, 1.0) == 1) ++longer;
    CHECK(longer >= 39 && longer <= 41);
}

TEST_CASE("thread pace: waiting for a thread that others hold up counts too") {
    clock_now = {1000, 0, 0};
    ThreadPace pace(2, read_clock);
    CHECK(graph(pace, 0.05, 1.0, 1.4) == 2);
    CHECK(graph(pace, 0.01, 1.0, 1.4) == 1);
}

TEST_CASE("thread pace: short graphs are judged together, and peace ends the pauses") {
    clock_now = {1000, 0, 0};
    ThreadPace pace(2, read_clock);
    for (int i = 0; i < 3; ++i) CHECK(graph(pace, 0.005, 0.5, 1.0) == 2);
    CHECK(graph(pace, 0.006, 0.5, 1.0) == 2);
    CHECK(graph(pace, 0.005, 1.0, 2.0) == 1);
    clock_now.wall += 1;
    for (int i = 0; i < 50; ++i) CHECK(graph(pace, 0.005, 1.0, 2.0) == 2);
}

TEST_CASE("thread pace: one thread is one thread") {
    ThreadPace pace(1, read_clock);
    for (int i = 0; i < 10; ++i) CHECK(graph(pace, 1.0, 0.1, 0.1) == 1);
}
