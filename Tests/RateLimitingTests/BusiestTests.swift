import Identity
import Primitives
import Testing

@testable import RateLimiting

private func at(_ milliseconds: Int64) -> MonotonicTime {
    MonotonicTime(nanoseconds: 5_000_000_000) + .milliseconds(milliseconds)
}

private func subject(_ n: UInt32, _ policy: UInt8 = 0) -> SubjectKey {
    SubjectKey(IPAddress(v4: n), policy: policy)
}

@Suite("Who is nearest to a limit")
struct BusiestTests {
    private let policies = [
        Policy(name: "few", limit: 10, window: .seconds(1), burst: 10),
        Policy(name: "many", limit: 1_000, window: .seconds(60), burst: 1_000),
        Policy(name: "running", limit: 4, window: .seconds(60), burst: 4, form: .leases),
    ]

    @Test("those with the largest share of their limit come first, and no more than asked for")
    func window() {
        let context = LimiterContext(
            policies: policies, services: [], lossRule: .open, timeout: .milliseconds(50), boot: 1, seed: 2)
        #expect(context.busiest(atMost: 3, at: at(0)).isEmpty)
        for n in 1...9 as ClosedRange<UInt32> {
            context.memories[0].record(Int(n), of: subject(n), at: at(0))
            context.memories[1].record(Int(n), of: subject(n, 1), at: at(0))
        }
        context.held.add(subject(7, 2))
        let all = context.busiest(atMost: 100, at: at(1))
        #expect(all.count == 19)
        let three = context.busiest(atMost: 3, at: at(1))
        #expect(three.map(\.subject) == [subject(9), subject(8), subject(7)])
        #expect(three.map(\.used) == [9, 8, 7])
        #expect(three.allSatisfy { $0.limit == 10 })
        // What has left the window is not counted, though its place may not be swept yet; what runs is.
        let later = context.busiest(atMost: 2, at: at(1_500))
        #expect(later.map(\.subject) == [subject(7, 2), subject(9, 1)])
        #expect(later.map(\.used) == [1, 9])
    }

    @Test("of buckets counts what is missing in them")
    func buckets() {
        let store = TokenBucketStore(policies: [policies[0]], seed: 3)
        for _ in 0..<12 { _ = store.take(subject(1), at: at(0)) }
        for _ in 0..<4 { _ = store.take(subject(2), at: at(0)) }
        #expect(store.busiest(atMost: 5, at: at(0)).map(\.used) == [10, 4])
        // Ten tokens a second come back.
        #expect(store.busiest(atMost: 5, at: at(200)).map(\.used) == [8, 2])
        #expect(store.busiest(atMost: 5, at: at(5_000)).isEmpty)
    }
}
