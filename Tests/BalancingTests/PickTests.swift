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

    @Test("a backend that is starting gets its part of its share", arguments: everyStrategy)
    func starting(strategy: BalancingStrategy) {
        let state = BalancerState(backendCount: 4)
        func tally(_ share: Int) -> Int {
            let snapshot = BalancerSnapshot(
                strategy: strategy, backends: backends([1, 1, 1, 1]), state: state,
                share: { $0 == 2 ? share : BalancerSnapshot.wholeShare })
            return snapshot.tally(10_000, backends: 4)[2]
        }
        let whole = tally(BalancerSnapshot.wholeShare)
        #expect((2_300...2_700).contains(whole))
        #expect((1_050...1_450).contains(tally(BalancerSnapshot.wholeShare / 2)))
        #expect((50...250).contains(tally(BalancerSnapshot.wholeShare / 16)))
        let alone = BalancerSnapshot(
            strategy: strategy, backends: backends([1, 1]), state: BalancerState(backendCount: 2),
            isAvailable: { $0 == 0 }, share: { _ in 1 })
        #expect(alone.tally(100, backends: 2) == [100, 0])
        let both = BalancerSnapshot(
            strategy: strategy, backends: backends([1, 1]), state: BalancerState(backendCount: 2), share: { _ in 1 })
        #expect(both.tally(1_000, backends: 2).allSatisfy { $0 > 300 })
        // A second choice is not spared: there may be no third.
        #expect(both.pick(hash: 5, excluding: 0) == 1)
    }

    @Test("the other nodes' requests count for least connections")
    func elsewhere() {
        let state = BalancerState(backendCount: 2)
        let snapshot = snapshot(.leastConnections, [1, 1], state: state)
        state.setElsewhere(5, of: 0)
        for _ in 0..<5 {
            #expect(snapshot.pick(hash: 0) == 1)
            state.began(1)
        }
        state.setElsewhere(0, of: 0)
        #expect(snapshot.pick(hash: 0) == 0)
        state.setElsewhere(-4, of: 1)
        #expect(state.elsewhere(1) == 0)
        state.setElsewhere(4, of: 99)
        #expect(state.elsewhere(99) == 0)
    }
}
