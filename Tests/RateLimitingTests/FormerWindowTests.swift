import Identity
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

    @Test(
        "they are copied again while others may still fill them, the rarer the more they hold, and once more afterwards",
        arguments: [
            (entries: 0, copies: 500...502), (entries: 10, copies: 500...502), (entries: 100, copies: 100...102),
            (entries: 1_000, copies: 10...12), (entries: 100_000, copies: 2...2),
        ] as [(entries: Int64, copies: ClosedRange<Int>)])
    func pace(entries: Int64, copies: ClosedRange<Int>) {
        let before = Self.context(Self.policy(100_000, .window))
        let context = Self.context(Self.policy(200_000, .window), before: before)
        var carrying = Carrying(context)
        let subject = SubjectKey(IPAddress(v4: 1))
        var count = 0
        // A transaction each 100 µs for half a minute: longer than the longest pause, shorter than the window.
        for step in 0..<300_000 as Range<Int64> {
            let now = MonotonicTime(nanoseconds: 1) + .microseconds(100) * step
            guard carrying.mustCarry(subject, context.former, at: now) else { continue }
            if count == 0 { #expect(step == 0, "before the first decision") }
            count += 1
            carrying.copied(subject, entries: entries, at: now)
            let again = carrying.mustCarry(subject, context.former, at: now)
            #expect(!again)
        }
        #expect(copies.contains(count), "\(count)")
    }

    @Test("when they have run out, nothing is copied any more")
    func end() {
        let before = Self.context(Self.policy(10, .window))
        let context = Self.context(Self.policy(20, .window), before: before)
        var carrying = Carrying(context)
        let subject = SubjectKey(IPAddress(v4: 1))
        #expect(carrying.isNeeded)
        let later = MonotonicTime(nanoseconds: 1) + .seconds(61)
        let isCopied = carrying.mustCarry(subject, context.former, at: later + .milliseconds(1))
        #expect(!isCopied)
        #expect(!carrying.isNeeded)
    }
}
