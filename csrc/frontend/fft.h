#pragma once
// Real Fourier transforms of the lengths that speech front ends use (400, 320, 512: factors 2, 3, 4, 5), for
// eight frames at once, one per lane, in double precision. Mixed-radix Stockham autosort (Van Loan,
// "Computational Frameworks for the Fast Fourier Transform", 1992, §1.7), and the usual packing of a real
// frame of n points into a complex one of n/2.

#include <complex>
#include <vector>

namespace rustasr {

constexpr int kFftLanes = 8;

struct FftLane {
    double v[kFftLanes];
};

/// One pass of a transform: `radix` points at a distance become one step of their transform each.
struct FftPass {
    int radix;
    int m;                                       // remaining points / radix
    int stride;                                  // of the points that share their factors
    std::vector<std::complex<double>> twiddles;  // [m, radix, radix]
};

class RealFft {
   public:
    /// n: even, n/2 a product of 2, 3, 4 and 5. Throws OptionError.
    explicit RealFft(int n);

    int size() const { return n_; }
    int n_bins() const { return n_ / 2 + 1; }
    /// Doubles of scratch in units of FftLane that `power` needs.
    size_t scratch_size() const { return static_cast<size_t>(n_) * 2; }

    /// frames [n] lanes → power [n_bins] lanes, |X|². `frames` is overwritten.
    void power(FftLane* frames, FftLane* scratch, FftLane* power) const;

   private:
    int n_;
    std::vector<FftPass> passes_;               // over n/2 points
    std::vector<std::complex<double>> unpack_;  // exp(-2πi k/n), k <= n/2
};

}  // namespace rustasr
