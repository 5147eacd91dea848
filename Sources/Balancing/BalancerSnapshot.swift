// Which backend gets the next request.
//
// A snapshot is built from the backends that are available at one moment and never changes; when health changes,
// another one takes its place whole. So a pick needs no lock and no backend that is down is ever looked at. What has to
// survive the swap is in `BalancerState`.
//
// Rejected: one balancer a worker without shared counters. Each would start its rotation at the same backend, and with
// w workers and few requests the first backends would get w times their share.

import Primitives

/// How a service's requests are spread.
package enum BalancingStrategy: Hashable, Sendable {
    /// In turn, whatever the weights.
    case roundRobin
    /// In turn and in proportion to the weights, spread as evenly as they allow.
    case weightedRoundRobin
    /// Where requests in flight divided by weight is least.
    case leastConnections
    /// The same key to the same backend, in proportion to the weights.
    case consistentHash
}

/// One backend of a service as the balancer sees it. Its position in the service's list is its index.
package struct BalancedBackend: Hashable, Sendable {
    /// 1 or more.
    package let weight: Int
    /// The same on every node: made from the URL and not from the position, so that a reordered list moves no key.
    let identity: UInt64

    package init(url: String, weight: Int) {
        self.weight = max(1, weight)
        identity = stableHash(url)
    }
}

/// The available backends of one service, and the strategy that chooses among them.
package final class BalancerSnapshot: Sendable {
    package let strategy: BalancingStrategy
    package let state: BalancerState
    /// Backends that may not be picked, and wait for one request to try them.
    package let trials: [Int]
    let candidates: [Candidate]
    /// Positions in `candidates`, for the weighted rotation alone.
    private let schedule: [UInt16]
    private let weightsAreEqual: Bool
    /// Whether a candidate has less than its whole share.
    private let someAreStarting: Bool

    /// What a backend gets that has nothing to warm up for.
    package static let wholeShare = 256

    struct Candidate {
        let index: Int
        /// Of `wholeShare`.
        let share: Int
        /// Divided by what all weights have in common.
        let weight: Int
        let inverseWeight: Double
        let identity: UInt64
    }

    /// - Parameters:
    ///   - backends: all backends of the service, at most 65,536. For `weightedRoundRobin` their weights, divided by
    ///     their common divisor, add up to 65,535 at most; what is beyond is scaled down.
    ///   - isAvailable: whether the backend with this index may be picked.
    ///   - state: of the same service, for as many backends.
    ///   - share: how much of what it is picked for the backend with this index gets, of `wholeShare`.
    ///   - trials: backends that wait for one request to try them.
    package init(
        strategy: BalancingStrategy, backends: [BalancedBackend], state: BalancerState,
        isAvailable: (Int) -> Bool = { _ in true }, share: (Int) -> Int = { _ in wholeShare }, trials: [Int] = []
    ) {
        self.strategy = strategy
        self.trials = trials
        self.state = state
        let available = backends.indices.prefix(1 << 16).filter(isAvailable)
        let divisor = max(1, available.reduce(0) { greatestCommonDivisor($0, backends[$1].weight) })
        candidates = available.map {
            let weight = backends[$0].weight / divisor
            return Candidate(
                index: $0, share: share($0), weight: weight, inverseWeight: 1 / Double(weight),
                identity: backends[$0].identity)
        }
        someAreStarting = candidates.contains { $0.share < Self.wholeShare }
        weightsAreEqual = candidates.allSatisfy { $0.weight == 1 }
        schedule = strategy == .weightedRoundRobin ? smoothSchedule(candidates.map(\.weight)) : []
    }

    /// How many backends may be picked.
    package var availableCount: Int { candidates.count }

    /// Whether the backend with this index may be picked.
    package func isAvailable(_ index: Int) -> Bool { candidates.contains { $0.index == index } }

    /// The index of the backend for the next request; `nil` where none is available, or only the excluded one.
    ///
    /// Does not count the request: call `state.began` when it is handed over.
    /// - Parameters:
    ///   - hash: of the key, for `consistentHash`; any number otherwise.
    ///   - excluded: the index of the backend that was just tried in vain.
    package func pick(hash: UInt64, excluding excluded: Int? = nil) -> Int? {
        if candidates.isEmpty { return nil }
        let excluded = excluded ?? -1
        if candidates.count == 1 { return candidates[0].index == excluded ? nil : candidates[0].index }
        guard someAreStarting, excluded < 0, let index = choose(hash, excluded) else { return choose(hash, excluded) }
        return spares(index, hash) ? choose(hash, index) ?? index : index
    }

    /// Whether a backend that has just come back is spared this request. With a hash the same keys come back first each
    /// time, and a key that has come back stays.
    private func spares(_ index: Int, _ hash: UInt64) -> Bool {
        guard let candidate = candidates.first(where: { $0.index == index }), candidate.share < Self.wholeShare else {
            return false
        }
        let draw = mix64(strategy == .consistentHash ? hash ^ candidate.identity : state.draw())
        return Int(draw % UInt64(Self.wholeShare)) >= candidate.share
    }

    private func choose(_ hash: UInt64, _ excluded: Int) -> Int? {
        switch strategy {
        case .roundRobin: return rotated(excluded)
        case .weightedRoundRobin: return scheduled(excluded)
        case .leastConnections: return leastLoaded(excluded)
        case .consistentHash: return highestScore(hash, excluded)
        }
    }

    private func rotated(_ excluded: Int) -> Int {
        let count = candidates.count
        let position = Int(state.turn() % UInt64(count))
        let index = candidates[position].index
        if index != excluded { return index }
        return candidates[position + 1 == count ? 0 : position + 1].index
    }

    private func scheduled(_ excluded: Int) -> Int? {
        let count = schedule.count
        var position = Int(state.turn() % UInt64(count))
        // A run of one backend in the schedule ends: every other one has a place too.
        for _ in 0..<count {
            let index = candidates[Int(schedule[position])].index
            if index != excluded { return index }
            position = position + 1 == count ? 0 : position + 1
        }
        return nil
    }

    /// Of equally loaded backends each gets its turn in proportion to its weight, or the first of the list would get
    /// every request of a quiet service.
    private func leastLoaded(_ excluded: Int) -> Int? {
        var least: Load?
        var first = -1
        var tied: UInt64 = 0
        for candidate in candidates where candidate.index != excluded {
            let load = Load(requests: state.load(candidate.index), weight: candidate.weight)
            if let least, !(load < least) {
                if !(least < load) { tied &+= UInt64(candidate.weight) }
                continue
            }
            least = load
            first = candidate.index
            tied = UInt64(candidate.weight)
        }
        guard let least else { return nil }
        var turn = state.turn() % tied
        for candidate in candidates where candidate.index != excluded {
            // Other workers count on meanwhile, so the ties of this pass may be others than those of the first.
            let load = Load(requests: state.load(candidate.index), weight: candidate.weight)
            if least < load { continue }
            if turn < UInt64(candidate.weight) { return candidate.index }
            turn &-= UInt64(candidate.weight)
        }
        return first
    }

    private func highestScore(_ hash: UInt64, _ excluded: Int) -> Int? {
        weightsAreEqual ? highestHash(hash, excluded) : highestWeightedScore(hash, excluded)
    }

    private func highestHash(_ hash: UInt64, _ excluded: Int) -> Int? {
        var best: (score: UInt64, index: Int)?
        for candidate in candidates where candidate.index != excluded {
            let score = rendezvousHash(key: hash, identity: candidate.identity)
            if let best, best.score >= score { continue }
            best = (score, candidate.index)
        }
        return best?.index
    }

    private func highestWeightedScore(_ hash: UInt64, _ excluded: Int) -> Int? {
        var best: (score: Double, index: Int)?
        for candidate in candidates where candidate.index != excluded {
            let score = rendezvousScore(key: hash, identity: candidate.identity, inverseWeight: candidate.inverseWeight)
            if let best, best.score >= score { continue }
            best = (score, candidate.index)
        }
        return best?.index
    }
}

/// Requests in flight for each unit of weight, compared without a division.
private struct Load {
    let requests: UInt64
    let weight: UInt64

    init(requests: Int, weight: Int) {
        // 2^31 requests and 2^31 units of weight multiply to less than 2^63.
        self.requests = UInt64(min(max(requests, 0), 1 << 31))
        self.weight = UInt64(min(weight, 1 << 31))
    }

    @inline(__always)
    static func < (a: Load, b: Load) -> Bool { a.requests &* b.weight < b.requests &* a.weight }
}
