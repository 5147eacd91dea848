/// A small seedable generator (SplitMix64, Steele, Lea and Flood 2014). For jitter, test schedules and hashing; not for
/// secrets. One printed seed replays everything drawn from it.
public struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        return mix64(state)
    }
}

/// The finalizer of SplitMix64: a bijection on 64 bits in which every input bit changes half of the output bits.
@inline(__always)
public func mix64(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
}

/// A 64-bit hash that is the same on every node and in every run (FNV-1a, then mixed). Where clients choose the bytes
/// and could aim for collisions, give a secret `seed`.
public func stableHash(_ bytes: Span<UInt8>, seed: UInt64 = 0) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325 ^ seed
    for i in bytes.indices {
        hash = (hash ^ UInt64(bytes[i])) &* 0x0000_0100_0000_01b3
    }
    return mix64(hash)
}

public func stableHash(_ text: String, seed: UInt64 = 0) -> UInt64 {
    stableHash(Array(text.utf8).span, seed: seed)
}
