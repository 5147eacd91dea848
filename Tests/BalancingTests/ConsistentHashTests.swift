import Foundation
import Primitives
import Testing

@testable import Balancing

@Suite("Consistent hash")
struct ConsistentHashTests {
    private static let keys = (0..<20_000).map { mix64(UInt64($0) &+ 12345) }

    private func owners(_ weights: [Int], down: Set<Int> = []) -> [Int?] {
        let balancer = snapshot(.consistentHash, weights, down: down)
        return Self.keys.map { balancer.pick(hash: $0) }
    }

    /// Five standard deviations of a binomial count.
    private func tolerance(_ share: Double) -> Double {
        5 * (Double(Self.keys.count) * share * (1 - share)).squareRoot()
    }

    @Test("the same key goes to the same backend")
    func stable() {
        #expect(owners([1, 1, 1]) == owners([1, 1, 1]))
        #expect(owners([1, 2, 3]) == owners([1, 2, 3]))
    }

    @Test(
        "keys are spread in proportion to the weights",
        arguments: [[1, 1, 1, 1, 1], [1, 2, 3], [9, 1], [100, 1, 100]])
    func spread(_ weights: [Int]) {
        let owners = owners(weights)
        let total = Double(weights.reduce(0, +))
        for (index, weight) in weights.enumerated() {
            let share = Double(weight) / total
            let count = Double(owners.count { $0 == index })
            #expect(abs(count - share * Double(Self.keys.count)) < tolerance(share))
        }
    }

    @Test(
        "a backend that leaves moves its own keys only, over all others",
        arguments: [[1, 1, 1, 1, 1], [1, 2, 3, 4, 5]])
    func leaving(_ weights: [Int]) {
        let before = owners(weights)
        for gone in weights.indices {
            let after = owners(weights, down: [gone])
            var inherited = [Int](repeating: 0, count: weights.count)
            for (old, new) in zip(before, after) {
                if old != gone { #expect(new == old) } else if let new { inherited[new] += 1 }
            }
            let heirs = weights.reduce(0, +) - weights[gone]
            let moved = inherited.reduce(0, +)
            for index in weights.indices where index != gone {
                let share = Double(weights[index]) / Double(heirs)
                let expected = share * Double(moved)
                #expect(
                    abs(Double(inherited[index]) - expected) < 5 * (Double(moved) * share * (1 - share)).squareRoot())
            }
        }
    }

    @Test("a changed weight moves keys from or to its own backend only")
    func reweighted() {
        for (old, new) in zip(owners([2, 3, 4]), owners([2, 5, 4])) where old != new { #expect(new == 1) }
        for (old, new) in zip(owners([2, 3, 4]), owners([2, 1, 4])) where old != new { #expect(old == 1) }
    }

    @Test("the excluded backend's keys go where they would if it were down")
    func excluding() {
        let balancer = snapshot(.consistentHash, [1, 2, 3])
        let without = snapshot(.consistentHash, [1, 2, 3], down: [2])
        for key in Self.keys { #expect(balancer.pick(hash: key, excluding: 2) == without.pick(hash: key)) }
    }

    @Test("the order of the list moves no key")
    func order() {
        let urls = (0..<5).map { "http://h\($0)" }
        func owners(_ urls: [String]) -> [String] {
            let balancer = BalancerSnapshot(
                strategy: .consistentHash,
                backends: urls.enumerated().map { BalancedBackend(url: $1, weight: 1 + urls.count) },
                state: BalancerState(backendCount: urls.count))
            return Self.keys.compactMap { balancer.pick(hash: $0) }.map { urls[$0] }
        }
        #expect(owners(urls) == owners(urls.reversed()))
    }

    @Test("keys that follow each other are spread too")
    func sequentialKeys() {
        let balancer = snapshot(.consistentHash, [1, 1, 1, 1])
        var tally = [0, 0, 0, 0]
        for key in 0..<20_000 as Range<UInt64> { if let index = balancer.pick(hash: key) { tally[index] += 1 } }
        for count in tally { #expect(abs(Double(count) - 5_000) < tolerance(0.25)) }
    }

    @Test("the logarithm agrees with the C library's")
    func logarithm() {
        var random = SplitMix64(seed: 1)
        for _ in 0..<10_000 {
            let x = (Double(random.next() >> 12) + 0.5) * 0x1p-52
            #expect(abs(naturalLogarithm(x) - log(x)) <= 1e-8 * abs(log(x)))
        }
        for x in [0x1p-53, 0.5, 1 - 0x1p-53, 0.999_999, 1e-9, 1, 2, 1e300] {
            #expect(abs(naturalLogarithm(x) - log(x)) <= 1e-8 * abs(log(x)))
        }
    }

    @Test("every hash has a finite score")
    func extremes() {
        var random = SplitMix64(seed: 2)
        for key in [0, 1, .max, 1 << 63] + (0..<1_000).map({ _ in random.next() }) as [UInt64] {
            let score = rendezvousScore(key: key, identity: random.next(), inverseWeight: 1.0 / 65_535)
            #expect(score.isFinite && score < 0)
        }
    }
}
