// Which backend gets a request that another one has failed.

import Primitives

extension BalancerSnapshot {
    /// The bit of a backend in a set of those that were tried. Those beyond 63 share one.
    @inline(__always)
    package static func bit(_ index: Int) -> UInt64 { 1 << UInt64(min(max(index, 0), 63)) }

    /// The index of the best available backend that was not tried yet; `nil` where all were.
    ///
    /// The rotation is not advanced: where every other request fails and takes a second turn, all requests would begin at
    /// the backend that fails.
    package func next(hash: UInt64, tried: UInt64) -> Int? {
        var best: (score: Double, index: Int)?
        let salt = mix64(state.currentTurn ^ tried)
        for candidate in candidates where tried & Self.bit(candidate.index) == 0 {
            let score: Double
            switch strategy {
            case .consistentHash:
                score = rendezvousScore(
                    key: hash, identity: candidate.identity, inverseWeight: candidate.inverseWeight)
            case .leastConnections:
                // A fraction of a request decides among equals, or the first of the list would get all of them.
                let fraction = Double(rendezvousHash(key: salt, identity: candidate.identity) >> 12) * 0x1p-52
                score = -(Double(state.inFlight(candidate.index)) + fraction) * candidate.inverseWeight
            case .weightedRoundRobin:
                score = rendezvousScore(
                    key: salt, identity: candidate.identity, inverseWeight: candidate.inverseWeight)
            case .roundRobin:
                score = rendezvousScore(key: salt, identity: candidate.identity, inverseWeight: 1)
            }
            if let best, best.score >= score { continue }
            best = (score, candidate.index)
        }
        return best?.index
    }
}
