import Primitives
import Testing

@testable import Balancing

@Suite("What every strategy does")
struct PickTests {
    @Test("nobody available means nobody picked", arguments: everyStrategy)
    func none(_ strategy: BalancingStrategy) {
        #expect(snapshot(strategy, []).picks(5) == [nil, nil, nil, nil, nil])
        #expect(snapshot(strategy, [1, 2], down: [0, 1]).picks(3) == [nil, nil, nil])
        #expect(snapshot(strategy, [1, 2], down: [0, 1]).availableCount == 0)
    }

    @Test("a single backend gets everything, and nothing when it is excluded", arguments: everyStrategy)
    func single(_ strategy: BalancingStrategy) {
        let balancer = snapshot(strategy, [1, 7, 1], down: [0, 2])
        #expect(balancer.picks(4) == [1, 1, 1, 1])
        #expect(balancer.pick(hash: 1, excluding: 1) == nil)
        #expect(balancer.pick(hash: 1, excluding: 0) == 1)
    }

    @Test("the excluded backend is never picked, every other one is", arguments: everyStrategy, [0, 1, 2, 3])
    func excluding(_ strategy: BalancingStrategy, _ excluded: Int) {
        let balancer = snapshot(strategy, [50, 1, 2, 3])
        var seen: Set<Int> = []
        for number in 0..<2_000 {
            guard let index = balancer.pick(hash: mix64(UInt64(number)), excluding: excluded) else {
                Issue.record("nobody picked")
                return
            }
            seen.insert(index)
        }
        #expect(seen == Set(0..<4).subtracting([excluded]))
    }

    @Test("what is down is never picked", arguments: everyStrategy)
    func down(_ strategy: BalancingStrategy) {
        let balancer = snapshot(strategy, [3, 1, 4, 1, 5], down: [1, 4])
        #expect(balancer.availableCount == 3)
        #expect(Set(balancer.picks(5_000)) == [0, 2, 3])
    }

    @Test("an excluded index that is none changes nothing", arguments: everyStrategy, [-1, 2, .max, .min])
    func foreignIndex(_ strategy: BalancingStrategy, _ excluded: Int) {
        #expect(snapshot(strategy, [1, 1]).pick(hash: 7, excluding: excluded) != nil)
    }

    @Test("a weight below 1 counts as 1", arguments: everyStrategy)
    func zeroWeight(_ strategy: BalancingStrategy) {
        #expect(Set(snapshot(strategy, [0, -5, .min]).picks(1_000)) == [0, 1, 2])
    }

    @Test("the largest weights and counts do not overflow", arguments: everyStrategy)
    func extremes(_ strategy: BalancingStrategy) {
        let state = BalancerState(backendCount: 2)
        for _ in 0..<3 { state.ended(0) }
        #expect(snapshot(strategy, [.max, .max - 1], state: state).pick(hash: .max) != nil)
        #expect(state.inFlight(0) == -3)
    }
}
