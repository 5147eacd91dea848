// Rendezvous hashing (Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates"): every backend
// gets a score for the key, and the highest wins. When one of n backends leaves, its keys alone move, about 1/n of all,
// and they spread over all that remain.
//
// Rejected: a ring of virtual nodes. It needs hundreds of points a backend for the same evenness, and a sorted array to
// search; a service has few enough backends to look at each of them.

import Primitives

/// The score of one backend for one key. Both come hashed; mixing them once more makes the scores of two backends
/// independent.
@inline(__always)
func rendezvousHash(key: UInt64, identity: UInt64) -> UInt64 {
    mix64((key ^ identity) &+ 0x9e37_79b9_7f4a_7c15)
}

/// The weighted form (the logarithmic method of Schindelhauer and Schomaker 2005, "Weighted distributed hash tables"):
/// the highest ln(u) / w with u uniform in (0, 1) wins in proportion to w, and a changed weight moves keys only from or
/// to its own backend.
@inline(__always)
func rendezvousScore(key: UInt64, identity: UInt64, inverseWeight: Double) -> Double {
    // 52 bits and a half: never 0, never 1, and exact in a Double.
    let uniform = (Double(rendezvousHash(key: key, identity: identity) >> 12) + 0.5) * 0x1p-52
    return naturalLogarithm(uniform) * inverseWeight
}

/// ln(x) for a positive, normal x, within 1e-8 of its size: shares are off by as little.
///
/// Not the C library's: two versions of it may round differently, and then two nodes would send one key to two
/// backends. Additions, multiplications and divisions are the same everywhere (IEEE 754).
func naturalLogarithm(_ x: Double) -> Double {
    var significand = Double(bitPattern: x.bitPattern & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000)
    var exponent = Double(Int64(x.bitPattern >> 52) - 1_023)
    if significand > 1.414_213_562_373_095_1 {
        significand /= 2
        exponent += 1
    }
    // ln(m) = 2 artanh((m - 1) / (m + 1)), and |s| ≤ 0.172: five terms.
    let s = (significand - 1) / (significand + 1)
    let square = s * s
    var sum = 1.0 / 9
    sum = sum * square + 1.0 / 7
    sum = sum * square + 1.0 / 5
    sum = sum * square + 1.0 / 3
    sum = sum * square + 1
    return 2 * s * sum + exponent * 0.693_147_180_559_945_3
}
