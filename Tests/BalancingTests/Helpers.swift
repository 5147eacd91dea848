import Primitives

@testable import Balancing

func backends(_ weights: [Int]) -> [BalancedBackend] {
    weights.enumerated().map { BalancedBackend(url: "http://10.0.0.\($0.offset):80", weight: $0.element) }
}

func snapshot(
    _ strategy: BalancingStrategy, _ weights: [Int], down: Set<Int> = [], state: BalancerState? = nil
) -> BalancerSnapshot {
    BalancerSnapshot(
        strategy: strategy, backends: backends(weights), state: state ?? BalancerState(backendCount: weights.count),
        isAvailable: { !down.contains($0) })
}

extension BalancerSnapshot {
    func picks(_ count: Int) -> [Int?] { (0..<count).map { pick(hash: mix64(UInt64($0))) } }

    /// How often each of `backends` backends was picked.
    func tally(_ count: Int, backends: Int) -> [Int] {
        var tally = [Int](repeating: 0, count: backends)
        for index in picks(count) { if let index { tally[index] += 1 } }
        return tally
    }
}

let everyStrategy: [BalancingStrategy] = [.roundRobin, .weightedRoundRobin, .leastConnections, .consistentHash]
