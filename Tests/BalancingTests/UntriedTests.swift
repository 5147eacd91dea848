import Primitives
import Testing

@testable import Balancing

@Suite("The next backend after a failure")
struct UntriedTests {
    static let strategies: [BalancingStrategy] = [
        .roundRobin, .weightedRoundRobin, .leastConnections, .consistentHash,
    ]

    private func snapshot(
        _ strategy: BalancingStrategy, _ count: Int, _ isAvailable: (Int) -> Bool = { _ in true }
    ) -> BalancerSnapshot {
        BalancerSnapshot(
            strategy: strategy, backends: (0..<count).map { BalancedBackend(url: "http://b\($0)", weight: 1 + $0 % 3) },
            state: BalancerState(backendCount: count), isAvailable: isAvailable)
    }

    @Test("each available backend comes once, then none", arguments: strategies)
    func all(strategy: BalancingStrategy) throws {
        let balancer = snapshot(strategy, 7) { $0 != 3 }
        for hash in 0..<50 as Range<UInt64> {
            var tried = BalancerSnapshot.bit(try #require(balancer.pick(hash: hash)))
            var order: [Int] = []
            while let next = balancer.next(hash: hash, tried: tried) {
                #expect(tried & BalancerSnapshot.bit(next) == 0 && next != 3)
                tried |= BalancerSnapshot.bit(next)
                order.append(next)
                try #require(order.count < 7)
            }
            #expect(order.count == 5)
        }
    }

    @Test("the load of a backend that fails spreads over all others", arguments: strategies)
    func spreads(strategy: BalancingStrategy) throws {
        let balancer = snapshot(strategy, 4)
        var counts = [0, 0, 0, 0]
        for hash in 0..<600 as Range<UInt64> {
            _ = balancer.pick(hash: mix64(hash))
            counts[try #require(balancer.next(hash: mix64(hash), tried: 1))] += 1
        }
        #expect(counts[0] == 0)
        #expect(counts[1...].allSatisfy { $0 > 60 }, "\(counts)")
    }

    @Test("consistent hashing moves a key to the backend that would have it if the first were gone")
    func consistent() throws {
        let all = snapshot(.consistentHash, 5)
        for hash in 0..<100 as Range<UInt64> {
            let first = try #require(all.pick(hash: hash))
            let without = snapshot(.consistentHash, 5) { $0 != first }
            #expect(all.next(hash: hash, tried: BalancerSnapshot.bit(first)) == without.pick(hash: hash))
        }
    }

    @Test("least connections takes the least loaded of the others")
    func least() {
        let balancer = snapshot(.leastConnections, 3)
        balancer.state.began(1)
        #expect(balancer.next(hash: 0, tried: 1) == 2)
        for _ in 0..<4 { balancer.state.began(2) }
        #expect(balancer.next(hash: 0, tried: 1) == 1)
    }

    @Test("a retry does not turn the rotation, so the next request begins behind this one")
    func rotation() {
        let balancer = snapshot(.roundRobin, 3)
        let first = balancer.pick(hash: 0)
        _ = balancer.next(hash: 0, tried: 1)
        #expect(balancer.pick(hash: 0) == first.map { $0 + 1 })
    }
}
