import Primitives

/// The pauses between attempts to connect: doubling, jittered, and never long, because a server that is back has to be
/// used again within a second.
struct Backoff {
    private var pause = Self.shortest
    private var random: SplitMix64

    static let shortest = TimeSpan.milliseconds(20)
    /// With the jitter, half a second.
    static let longest = TimeSpan.milliseconds(400)

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    mutating func reset() { pause = Self.shortest }

    /// How long to wait now. Nodes that lost the same server must not come back in step, so up to a quarter is added.
    mutating func next() -> TimeSpan {
        let jittered = pause + TimeSpan(nanoseconds: Int64.random(in: 0...pause.nanoseconds / 4, using: &random))
        pause = min(pause + pause, Self.longest)
        return jittered
    }
}
