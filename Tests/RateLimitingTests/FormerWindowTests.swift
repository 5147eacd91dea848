import Primitives
import Testing

@testable import RateLimiting

@Suite("Which windows of before count on")
struct FormerWindowTests {
    private static func context(_ policy: Policy, before: LimiterContext? = nil) -> LimiterContext {
        LimiterContext(
            policies: [policy], services: [], lossRule: .closed, timeout: .seconds(1), boot: 1, seed: 2,
            before: before, at: MonotonicTime(nanoseconds: 1))
    }

    private static func policy(_ limit: Int, _ form: PolicyForm) -> Policy {
        Policy(name: "a", limit: limit, window: .seconds(60), burst: 1, form: form)
    }

    @Test(
        "those of entries under another limit do; counts and leases do not, and nothing is copied between the two",
        arguments: [
            (PolicyForm.window, PolicyForm.window, true), (.leases, .leases, false), (.buckets, .buckets, false),
            (.window, .buckets, false), (.buckets, .window, false), (.window, .leases, false),
        ])
    func forms(old: PolicyForm, new: PolicyForm, countsOn: Bool) {
        let before = Self.context(Self.policy(10, old))
        let context = Self.context(Self.policy(20, new), before: before)
        #expect((context.former[0] != nil) == countsOn)
    }
}
