import Primitives
import Testing

@testable import Balancing

@Suite("Rotation")
struct RotationTests {
    @Test("round robin takes each in turn, whatever the weights")
    func roundRobin() {
        #expect(snapshot(.roundRobin, [1, 9, 1]).picks(7) == [0, 1, 2, 0, 1, 2, 0])
    }

    @Test(
        "the weighted rotation is nginx's smooth one",
        arguments: [
            ([5, 1, 1], [0, 0, 1, 0, 2, 0, 0]), ([1, 1], [0, 1]), ([1], [0]), ([3, 1], [0, 0, 1, 0]),
            ([1, 3], [1, 0, 1, 1]), ([2, 2, 2], [0, 1, 2]), ([10, 20], [1, 0, 1]),
            ([4, 3, 2, 1], [0, 1, 2, 0, 1, 3, 0, 2, 1, 0]),
        ])
    func smooth(_ weights: [Int], _ expected: [Int]) {
        #expect(snapshot(.weightedRoundRobin, weights).picks(expected.count * 2) == expected + expected)
    }

    @Test(
        "every full cycle has exactly the proportions of the weights",
        arguments: [[1, 1, 1], [5, 1, 1], [100, 1], [7, 11, 13], [65_534, 1], [300, 200, 100], Array(1...50)])
    func proportions(_ weights: [Int]) {
        let divisor = weights.reduce(0, greatestCommonDivisor)
        let cycle = weights.reduce(0, +) / divisor
        let balancer = snapshot(.weightedRoundRobin, weights)
        for _ in 0..<3 { #expect(balancer.tally(cycle, backends: weights.count) == weights.map { $0 / divisor }) }
    }

    @Test(
        "a weighted rotation never falls a whole turn behind",
        arguments: [[5, 1, 1], [7, 11, 13], [1, 50], [3, 3, 4]])
    func evenness(_ weights: [Int]) {
        let total = weights.reduce(0, +)
        var seen = [Int](repeating: 0, count: weights.count)
        for (turn, index) in snapshot(.weightedRoundRobin, weights).picks(total).enumerated() {
            if let index { seen[index] += 1 }
            for position in weights.indices {
                let fair = Double((turn + 1) * weights[position]) / Double(total)
                #expect(abs(Double(seen[position]) - fair) < Double(weights.count))
            }
        }
    }

    @Test("what is down is skipped, and the others share exactly")
    func down() {
        #expect(snapshot(.roundRobin, [1, 1, 1, 1], down: [1, 2]).tally(1_000, backends: 4) == [500, 0, 0, 500])
        #expect(snapshot(.weightedRoundRobin, [5, 3, 2], down: [0]).tally(1_000, backends: 3) == [0, 600, 400])
    }

    @Test("the rotation goes on where it was when health changes")
    func survivesSwap() {
        let state = BalancerState(backendCount: 3)
        #expect(snapshot(.roundRobin, [1, 1, 1], state: state).picks(2) == [0, 1])
        #expect(snapshot(.roundRobin, [1, 1, 1], state: state).picks(2) == [2, 0])
        #expect(snapshot(.roundRobin, [1, 1, 1], down: [0], state: state).picks(3) == [1, 2, 1])
    }

    @Test("threads that pick at once keep the proportions exact", arguments: [[1, 1, 1, 1, 1], [5, 3, 2]])
    func concurrent(_ weights: [Int]) async {
        let strategy: BalancingStrategy = weights[0] == 1 ? .roundRobin : .weightedRoundRobin
        let balancer = snapshot(strategy, weights)
        let perTask = 25_000
        let tallies = await withTaskGroup(of: [Int].self) { group in
            for _ in 0..<4 { group.addTask { balancer.tally(perTask, backends: weights.count) } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        let sum = weights.indices.map { index in tallies.reduce(0) { $0 + $1[index] } }
        let total = weights.reduce(0, +)
        #expect(sum == weights.map { 4 * perTask * $0 / total })
    }

    @Test("weights beyond the longest schedule are scaled and none is lost")
    func longSchedule() {
        let schedule = smoothSchedule([Int.max, Int.max / 2, 1])
        #expect(schedule.count <= scheduleLengthMax)
        #expect(Set(schedule) == [0, 1, 2])
        let many = smoothSchedule([Int](repeating: 1, count: 1_000) + [1_000_000])
        #expect(many.count <= scheduleLengthMax)
        #expect(Set(many).count == 1_001)
    }
}
