import Primitives
import Testing

@testable import Balancing

@Suite("Least connections")
struct LeastConnectionsTests {
    /// Requests in flight, weights, and the only right choice.
    @Test(
        "the least loaded for its weight is chosen",
        arguments: [
            ([3, 1, 2], [1, 1, 1], 1), ([0, 1, 1], [1, 1, 1], 0), ([4, 3], [2, 1], 0), ([5, 2], [2, 1], 1),
            ([10, 99], [1, 10], 1), ([100, 1], [65_535, 1], 0), ([1, 0], [65_535, 1], 1),
        ])
    func least(_ inFlight: [Int], _ weights: [Int], _ expected: Int) {
        let state = BalancerState(backendCount: weights.count)
        for (index, count) in inFlight.enumerated() { for _ in 0..<count { state.began(index) } }
        let balancer = snapshot(.leastConnections, weights, state: state)
        #expect(balancer.picks(5) == [expected, expected, expected, expected, expected])
    }

    @Test("equally loaded backends take turns")
    func ties() {
        let state = BalancerState(backendCount: 3)
        #expect(snapshot(.leastConnections, [1, 1, 1], state: state).tally(300, backends: 3) == [100, 100, 100])
        // The tied ones stand side by side; neither inherits the turns of the third.
        state.began(2)
        #expect(snapshot(.leastConnections, [1, 1, 1], state: state).tally(300, backends: 3) == [150, 150, 0])
    }

    @Test("a quiet service is shared in proportion to the weights")
    func weightedTies() {
        #expect(snapshot(.leastConnections, [30, 10]).tally(400, backends: 2) == [300, 100])
    }

    @Test("requests that stay fill the backends in proportion to their weights")
    func filling() {
        let state = BalancerState(backendCount: 3)
        let balancer = snapshot(.leastConnections, [1, 2, 3], state: state)
        for _ in 0..<600 { if let index = balancer.pick(hash: 0) { state.began(index) } }
        #expect((0..<3).map(state.inFlight) == [100, 200, 300])
    }

    @Test("a backend that frees a place gets the next request")
    func freed() {
        let state = BalancerState(backendCount: 3)
        for index in 0..<3 { for _ in 0..<5 { state.began(index) } }
        state.ended(1)
        #expect(snapshot(.leastConnections, [1, 1, 1], state: state).pick(hash: 0) == 1)
    }

    @Test("counts survive health changes and are exact over threads")
    func concurrentCounts() async {
        let state = BalancerState(backendCount: 40)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    let balancer = snapshot(.leastConnections, [Int](repeating: 1, count: 40), state: state)
                    for number in 0..<5_000 {
                        guard let index = balancer.pick(hash: UInt64(number)) else { continue }
                        state.began(index)
                        if number % 2 == 0 { state.ended(index) }
                    }
                }
            }
        }
        #expect((0..<40).reduce(0) { $0 + state.inFlight($1) } == 10_000)
    }

    @Test("what is in flight at a backend stays so when others come and go, and ends where it began")
    func successors() {
        let first = BalancerState(backendCount: 3)
        for (index, count) in [3, 2, 1].enumerated() { for _ in 0..<count { first.began(index) } }
        first.setElsewhere(7, of: 1)
        // The first goes, two come, and the others change places.
        let second = BalancerState(after: first, former: [2, nil, 1, nil])
        #expect((0..<4).map { second.inFlight($0) } == [1, 0, 2, 0])
        #expect((0..<4).map { second.elsewhere($0) } == [0, 0, 7, 0])
        first.ended(2)
        second.began(2)
        #expect(second.inFlight(0) == 0)
        #expect(first.inFlight(1) == 3)
        // What is still in flight at the one that went counts for nobody else, however many come.
        let third = BalancerState(after: second, former: [0, 1, 2, 3] + Array(repeating: nil, count: 100))
        #expect((0..<104).map { third.inFlight($0) } == [0, 0, 3, 0] + Array(repeating: 0, count: 100))
        for _ in 0..<3 { first.ended(0) }
        #expect((0..<104).reduce(0) { $0 + third.inFlight($1) } == 3)
        // Its counter is free for another then.
        let fourth = BalancerState(after: third, former: Array(0..<104) + [nil])
        fourth.began(104)
        #expect(first.inFlight(0) == 1)
        #expect(BalancerState(after: first, former: [-1, 3, .max]).inFlight(1) == 0)
    }

    @Test("an index that is none is ignored", arguments: [-1, 2, 31, 32, .max, .min])
    func foreignIndex(_ index: Int) {
        let state = BalancerState(backendCount: 2)
        state.began(index)
        state.ended(index)
        #expect(state.inFlight(index) == 0)
        #expect(BalancerState(backendCount: -1).inFlight(0) == 0)
    }
}
