#include "frontend/fft.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "core/error.h"
#include "kernels/clones.h"

namespace rustasr {
namespace {

constexpr double kTau = 6.283185307179586476925286766559;

std::complex<double> unit(int k, int n) { return std::polar(1.0, -kTau * k / n); }

std::vector<int> factorize(int n) {
    std::vector<int> factors;
    for (int radix : {4, 2, 3, 5}) {
        for (; n % radix == 0; n /= radix) factors.push_back(radix);
    }
    if (n != 1) factors.clear();
    return factors;
}

// w_n^(p·i) w_r^(i·k), n = r·m.
FftPass make_pass(int radix, int m, int stride) {
    FftPass pass{radix, m, stride, {}};
    const int n = radix * m;
    for (int p = 0; p < m; ++p) {
        for (int i = 0; i < radix; ++i) {
            for (int k = 0; k < radix; ++k) pass.twiddles.push_back(unit((p + m * k) * i % n, n));
        }
    }
    return pass;
}

// One pass of radix r over n = r·m points with stride s: out[q + s(r·p + i)] = w_n^(p·i) Σ_k x[q + s(p +
// m·k)] w_r^(i·k). Complex points are pairs of lanes: real part, imaginary part.
RUSTASR_CLONES void stockham_pass(const FftPass& pass, const FftLane* x, FftLane* y) {
    const int radix = pass.radix, m = pass.m, stride = pass.stride;
    const std::complex<double>* w = pass.twiddles.data();
    for (int p = 0; p < m; ++p) {
        for (int i = 0; i < radix; ++i, w += radix) {
            for (int q = 0; q < stride; ++q) {
                double re[kFftLanes] = {}, im[kFftLanes] = {};
                for (int k = 0; k < radix; ++k) {
                    const FftLane* a = x + 2 * (q + stride * (p + m * k));
                    const double wr = w[k].real(), wi = w[k].imag();
                    for (int lane = 0; lane < kFftLanes; ++lane) {
                        re[lane] += wr * a[0].v[lane] - wi * a[1].v[lane];
                        im[lane] += wr * a[1].v[lane] + wi * a[0].v[lane];
                    }
                }
                FftLane* out = y + 2 * (q + stride * (radix * p + i));
                std::memcpy(out[0].v, re, sizeof(re));
                std::memcpy(out[1].v, im, sizeof(im));
            }
        }
    }
}

// X[k] = (Z[k] + Z*[N-k])/2 + w^k (Z[k] - Z*[N-k])/(2i), with N = n/2 and Z the transform of x[2j] + i
// x[2j+1].
RUSTASR_CLONES void unpack_power(int half, const std::complex<double>* unpack, const FftLane* z,
                                 FftLane* power) {
    for (int k = 0; k <= half; ++k) {
        const FftLane* a = z + 2 * (k % half);
        const FftLane* b = z + 2 * ((half - k) % half);
        const double wr = unpack[k].real(), wi = unpack[k].imag();
        for (int lane = 0; lane < kFftLanes; ++lane) {
            const double even_re = 0.5 * (a[0].v[lane] + b[0].v[lane]);
            const double even_im = 0.5 * (a[1].v[lane] - b[1].v[lane]);
            const double odd_re = 0.5 * (a[1].v[lane] + b[1].v[lane]);
            const double odd_im = -0.5 * (a[0].v[lane] - b[0].v[lane]);
            const double re = even_re + wr * odd_re - wi * odd_im;
            const double im = even_im + wr * odd_im + wi * odd_re;
            power[k].v[lane] = re * re + im * im;
        }
    }
}

}  // namespace

RealFft::RealFft(int n) : n_(n) {
    const std::vector<int> factors = n % 2 == 0 ? factorize(n / 2) : std::vector<int>{};
    if (n < 4 || factors.empty()) {
        throw OptionError("an FFT of " + std::to_string(n) +
                          " points: expected an even product of 2, 3 and 5");
    }
    int remaining = n / 2, stride = 1;
    for (int radix : factors) {
        remaining /= radix;
        passes_.push_back(make_pass(radix, remaining, stride));
        stride *= radix;
    }
    for (int k = 0; k <= n / 2; ++k) unpack_.push_back(unit(k, n));
}

void RealFft::power(FftLane* frames, FftLane* scratch, FftLane* power) const {
    const int half =
        n_ / 2;  // even samples are the real parts, odd ones the imaginary parts: already in place
    FftLane* x = frames;
    FftLane* y = scratch;
    for (const FftPass& pass : passes_) {
        stockham_pass(pass, x, y);
        std::swap(x, y);
    }
    unpack_power(half, unpack_.data(), x, power);
}

}  // namespace rustasr
