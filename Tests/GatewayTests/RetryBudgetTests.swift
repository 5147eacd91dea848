import Primitives
import Testing

@testable import Gateway

@Suite("The budget of retries")
struct RetryBudgetTests {
    private func at(_ milliseconds: Int64) -> MonotonicTime {
        MonotonicTime(nanoseconds: 5_000_000_000) + .milliseconds(milliseconds)
    }

    /// Takes as many retries as there are, up to a thousand.
    private func takeAll(_ budget: inout RetryBudget, at now: MonotonicTime) -> Int {
        var taken = 0
        while taken < 1_000, budget.take(at: now) { taken += 1 }
        return taken
    }

    @Test("a fifth of the requests may be retried, and no more")
    func share() {
        var budget = RetryBudget(percent: 20, minimum: 0)
        #expect(takeAll(&budget, at: at(0)) == 0)
        for i in 0..<1_000 { budget.requested(at: at(Int64(i))) }
        #expect(takeAll(&budget, at: at(1_000)) == 200)
        for _ in 0..<100 { budget.requested(at: at(1_500)) }
        #expect(takeAll(&budget, at: at(1_500)) == 20)
    }

    @Test("below the share some are free")
    func minimum() {
        var budget = RetryBudget(percent: 20, minimum: 3)
        #expect(takeAll(&budget, at: at(0)) == 3)
        for _ in 0..<20 { budget.requested(at: at(0)) }
        // 20 % of 20 is 4, of which 3 are taken.
        #expect(takeAll(&budget, at: at(0)) == 1)
    }

    @Test("what happened ten seconds ago is forgotten, slot by slot")
    func window() {
        var budget = RetryBudget(percent: 10, minimum: 0)
        for second in 0..<10 { for _ in 0..<100 { budget.requested(at: at(Int64(second) * 1_000)) } }
        #expect(takeAll(&budget, at: at(9_999)) == 100)
        // One second's requests are gone, and the retries are not.
        #expect(takeAll(&budget, at: at(10_000)) == 0)
        for _ in 0..<200 { budget.requested(at: at(10_000)) }
        #expect(takeAll(&budget, at: at(10_000)) == 10)
        // The first hundred retries are forgotten at 19 s; what is left then are 200 requests and 10 retries.
        #expect(takeAll(&budget, at: at(18_999)) == 0)
        #expect(takeAll(&budget, at: at(19_000)) == 10)
        #expect(takeAll(&budget, at: at(3_600_000)) == 0)
    }

    @Test("nothing free and no share is no retry; all of it is one for each request")
    func extremes() {
        var none = RetryBudget(percent: 0, minimum: 0)
        var all = RetryBudget(percent: 100, minimum: 0)
        for _ in 0..<50 {
            none.requested(at: at(0))
            all.requested(at: at(0))
        }
        #expect(takeAll(&none, at: at(0)) == 0)
        #expect(takeAll(&all, at: at(0)) == 50)
    }

    @Test("a model that remembers every event agrees", arguments: 0..<20)
    func model(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        var budget = RetryBudget(percent: 25, minimum: 2)
        var requests: [Int64] = []
        var retries: [Int64] = []
        var now: Int64 = 0
        for _ in 0..<2_000 {
            now += Int64(generator.next() % 40)
            if generator.next() % 400 == 0 { now += Int64(generator.next() % 30_000) }
            let second = at(now).nanoseconds / 1_000_000_000
            requests.removeAll { $0 <= second - 10 }
            retries.removeAll { $0 <= second - 10 }
            if generator.next() % 2 == 0 {
                budget.requested(at: at(now))
                requests.append(second)
            } else {
                let expected = retries.count < max(2, requests.count * 25 / 100)
                #expect(budget.take(at: at(now)) == expected)
                if expected { retries.append(second) }
            }
        }
    }
}
