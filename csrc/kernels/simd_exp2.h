// Coefficients of 2^f on [-1/2, 1/2]: 1 + f*(c1 + f*(c2 + ...)), fitted to the least greatest relative error
// (iteratively reweighted least squares at Chebyshev points, Lawson's method) with the constant held at 1, so
// that the greatest score of a row gets weight 1 exactly. Range reduction by rounding, as in Cody and Waite,
// "Software Manual for the Elementary Functions", 1980.
#pragma once

namespace rustasr::kernels {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.69314718055994531f;

// Degree 6: error 2e-9 before rounding, about 1e-7 with it.
constexpr float kExp2C1 = 0.6931472f, kExp2C2 = 0.24022648f, kExp2C3 = 0.055503324f, kExp2C4 = 0.009618437f,
                kExp2C5 = 0.0013398874f, kExp2C6 = 0.00015353362f;

// Degree 3: error 1e-4, an eighth of what rounding to BF16 loses.
constexpr float kExp2Short1 = 0.6932829f, kExp2Short2 = 0.24221095f, kExp2Short3 = 0.055008933f;

}  // namespace rustasr::kernels
