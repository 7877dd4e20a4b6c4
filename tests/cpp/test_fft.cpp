#include <cmath>
#include <random>

#include "check.h"
#include "core/error.h"
#include "frontend/fft.h"

TEST_CASE("fft: power equals the direct transform, in every lane") {
    using namespace rustasr;
    for (const int n : {4, 6, 10, 16, 30, 60, 320, 400, 512}) {
        const RealFft fft(n);
        std::mt19937 random(static_cast<uint32_t>(n));
        std::normal_distribution<double> normal(0, 1);
        std::vector<FftLane> frames(static_cast<size_t>(n)), scratch(fft.scratch_size());
        std::vector<FftLane> power(static_cast<size_t>(fft.n_bins()));
        for (FftLane& lane : frames) {
            for (double& value : lane.v) value = normal(random);
        }
        const std::vector<FftLane> samples = frames;
        fft.power(frames.data(), scratch.data(), power.data());
        for (int lane = 0; lane < kFftLanes; lane += 3) {
            for (int k = 0; k < fft.n_bins(); ++k) {
                double re = 0, im = 0;
                for (int i = 0; i < n; ++i) {
                    const double angle = -2 * 3.14159265358979323846 * k * i / n;
                    re += samples[static_cast<size_t>(i)].v[lane] * std::cos(angle);
                    im += samples[static_cast<size_t>(i)].v[lane] * std::sin(angle);
                }
                const double expected = re * re + im * im;
                CHECK_NEAR(power[static_cast<size_t>(k)].v[lane], expected, 1e-9 * (1 + expected));
            }
        }
    }
}

TEST_CASE("fft: a length with another factor is refused") {
    CHECK_THROWS(rustasr::RealFft(14), rustasr::OptionError, "14 points");
    CHECK_THROWS(rustasr::RealFft(401), rustasr::OptionError, "401 points");
}
