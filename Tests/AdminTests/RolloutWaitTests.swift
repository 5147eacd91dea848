import Primitives
import Testing

@testable import Admin

@Suite("Waiting for the end of a proposal")
struct RolloutWaitTests {
    private static let start = MonotonicTime(nanoseconds: 7)

    /// What is made of each answer, by the seconds at which it comes; up to the first that ends the wait.
    private func outcomes(_ answers: [(at: Int64, state: String, ticket: Int)]) -> [RolloutWait.Outcome?] {
        let wait = RolloutWait(for: 3, since: Self.start)
        return answers.map { answer in
            let status = RolloutStatus(
                ticket: answer.ticket, state: answer.state, version: 1, votes: [:], inForce: [], errors: [])
            return wait.outcome(status, at: Self.start + .milliseconds(answer.at * 1_000 - 1))
        }
    }

    @Test("an end is an end, whenever it comes", arguments: [0, 1, 29, 31, 1_000] as [Int64])
    func ended(at: Int64) {
        #expect(outcomes([(at, "switched", 3)]) == [.switched])
        #expect(outcomes([(at, "refused", 3)]) == [.refused])
    }

    @Test(
        "what has not ended is asked for again for thirty seconds, and then said to be unknown or untold",
        arguments: [
            ("proposing", RolloutWait.Outcome.untold), ("voting", .untold), ("switching", .untold), ("idle", .untold),
            ("a word of another version", .untold), ("unknown", .unknown),
        ])
    func patience(state: String, last: RolloutWait.Outcome) {
        #expect(
            outcomes([(0, state, 3), (10, state, 3), (30, state, 3), (31, state, 3)]) == [nil, nil, nil, last])
    }

    @Test("what nobody knew may be known in time")
    func known() {
        #expect(outcomes([(12, "unknown", 3), (13, "switching", 3), (20, "switched", 3)]) == [nil, nil, .switched])
        #expect(outcomes([(29, "unknown", 3), (30, "refused", 3)]) == [nil, .refused])
    }

    @Test("the end of another proposal is none of this one")
    func others() {
        #expect(
            outcomes([(1, "switched", 2), (2, "refused", 4), (31, "switched", 2), (31, "unknown", 4)])
                == [nil, nil, .untold, .untold])
    }
}
