import Identity
import LinuxIO
import Primitives
import RateLimiting
import Testing

private func at(_ milliseconds: Int64) -> MonotonicTime {
    MonotonicTime(nanoseconds: 5_000_000_000) + .milliseconds(milliseconds)
}

private func subject(_ n: Int) -> SubjectKey { SubjectKey(IPAddress(v4: UInt32(truncatingIfNeeded: n))) }

private func admitted(_ verdict: Verdict) -> Bool {
    switch verdict {
    case .admit: true
    case .refuse: false
    }
}

@Suite("Token buckets")
struct TokenBucketTests {
    @Test(
        "a full bucket gives its burst at once, then its rate",
        arguments: [
            (1, 1), (10, 5), (100, 10), (1_000, 1), (333, 7), (1_000_000_000, 3), (1_000_000_000_000_000, 1),
        ])
    func burstThenRate(rate: Int, burst: Int) {
        let policy = TokenBucket.Rate(tokens: rate, per: .seconds(1), burst: burst)
        var bucket = TokenBucket()
        var passed = 0
        for _ in 0..<(burst + 3) where admitted(bucket.take(at: at(0), policy)) { passed += 1 }
        #expect(passed == burst)
        // In a second of hammering, the rate, give or take the one that is being filled.
        guard rate <= 1_000 else { return }
        var more = 0
        for i in 1...4_000 as ClosedRange<Int64> where admitted(bucket.take(at: at(0) + .microseconds(i * 250), policy))
        {
            more += 1
        }
        #expect(abs(more - rate) <= 1)
    }

    @Test("whoever waits as told passes, and not a nanosecond earlier")
    func retryAfter() {
        let rate = TokenBucket.Rate(tokens: 3, per: .seconds(1), burst: 1)
        var bucket = TokenBucket()
        _ = bucket.take(at: at(0), rate)
        guard case .refuse(let wait) = bucket.take(at: at(0), rate) else {
            Issue.record("not refused")
            return
        }
        var early = bucket
        #expect(!admitted(early.take(at: at(0) + wait - .nanoseconds(1), rate)))
        #expect(admitted(bucket.take(at: at(0) + wait, rate)))
    }

    @Test("the remaining tokens are told")
    func remaining() {
        let rate = TokenBucket.Rate(tokens: 10, per: .seconds(1), burst: 3)
        var bucket = TokenBucket()
        #expect(bucket.take(at: at(0), rate) == .admit(remaining: 2))
        #expect(bucket.take(at: at(0), rate) == .admit(remaining: 1))
        #expect(bucket.take(at: at(0), rate) == .admit(remaining: 0))
        #expect(bucket.take(at: at(100), rate) == .admit(remaining: 0))
        #expect(bucket.take(at: at(10_000), rate) == .admit(remaining: 2))
    }

    @Test("extreme rates, bursts and times neither overflow nor stop the clock")
    func extremes() {
        for (rate, burst, span) in [
            (Int.max, Int.max, TimeSpan.max), (Int.max, 1, .nanoseconds(1)), (1, Int.max, .max), (0, 0, .zero),
            (-5, -5, .seconds(-3)),
        ] {
            let policy = TokenBucket.Rate(tokens: rate, per: span, burst: burst)
            var bucket = TokenBucket()
            for time in [0, .max, 1, .min, .max] as [Int64] {
                _ = bucket.take(at: MonotonicTime(nanoseconds: time), policy)
            }
        }
        // A nanosecond brings a thousand tokens of this one; all thousand can be taken.
        let fast = TokenBucket.Rate(tokens: 1_000_000_000_000, per: .seconds(1), burst: 1_000)
        var bucket = TokenBucket()
        for nanosecond in 0..<5 as Range<Int64> {
            for _ in 0..<1_000 { #expect(admitted(bucket.take(at: MonotonicTime(nanoseconds: nanosecond), fast))) }
            #expect(!admitted(bucket.take(at: MonotonicTime(nanoseconds: nanosecond), fast)))
        }
    }

    @Test("clients do not share, idle ones are forgotten, and room is bounded")
    func store() {
        let policy = Policy(name: "default", limit: 10, window: .seconds(1), burst: 2)
        let store = TokenBucketStore(policy, seed: 1, clientsMax: 1_024)
        for n in 0..<500 {
            #expect(admitted(store.take(subject(n), at: at(0))))
            #expect(admitted(store.take(subject(n), at: at(0))))
            #expect(!admitted(store.take(subject(n), at: at(0))))
        }
        #expect(store.count == 500)
        #expect(store.policyCounts[0].admitted == 1_000 && store.policyCounts[0].refused(by: .bucket) == 500)
        #expect(store.evictionCount == 0)
        // A client a millisecond, each of whom is full again after 100: the 500 and all but the latest are swept away.
        for n in 0..<20_000 { _ = store.take(subject(1_000_000 + n), at: at(5_000 + Int64(n))) }
        #expect(store.count < 600)
        #expect(store.evictionCount == 0)
        for n in 0..<100_000 { #expect(admitted(store.take(subject(n), at: at(100_000)))) }
        #expect(store.count <= 1_024)
        #expect(store.evictionCount > 0)
    }
}

extension TokenBucketTests {
    @Test("a bucket that fills faster than anybody can ask refuses nobody, whichever threads ask")
    func fasterThanAnybody() {
        let store = TokenBucketStore(
            Policy(name: "default", limit: 1_000_000_000, window: .seconds(1), burst: 1), seed: 1)
        let threads = (0..<4).map { _ in
            OSThread(name: "asks") {
                for _ in 0..<20_000 { _ = store.take(subject(1), at: SystemClock.monotonic()) }
            }
        }
        for thread in threads { thread.join() }
        #expect(store.policyCounts[0].admitted == 80_000)
        #expect(store.policyCounts[0].refused == 0)
    }
}

@Suite("The memory of admissions")
struct AdmissionMemoryTests {
    private static let window = TimeSpan.seconds(1)

    private func memory(subjects: Int = 1_000, groups: Int = 10_000) -> RecentAdmissions {
        RecentAdmissions(window: Self.window, subjectsMax: subjects, groupsMax: groups, seed: 3)
    }

    @Test("admits its share in a window, counting what Redis admitted, and no more")
    func share() {
        var memory = memory()
        memory.record(3, of: subject(1), at: at(0))
        #expect(memory.admit(subject(1), share: 5, at: at(1)) == .admit(remaining: 1))
        #expect(memory.admit(subject(1), share: 5, at: at(2)) == .admit(remaining: 0))
        #expect(memory.admit(subject(1), share: 5, at: at(3)) == .refuse(retryAfter: .microseconds(999_001)))
        #expect(admitted(memory.admit(subject(2), share: 1, at: at(3))))
        #expect(!admitted(memory.admit(subject(1), share: 5, at: at(999))))
        #expect(admitted(memory.admit(subject(1), share: 5, at: at(1_003))))
    }

    @Test("never more than the share in any window, whatever the times; a hammering client gets nearly all of it")
    func neverMore() {
        let seed = SystemClock.random64()
        var random = SplitMix64(seed: seed)
        for share in [1, 7, 100, 1_000] {
            var memory = memory()
            var times: [MonotonicTime] = []
            var now = at(0)
            let steps = 20_000
            for _ in 0..<steps {
                now = now + .microseconds(Int64.random(in: 0...400, using: &random))
                if admitted(memory.admit(subject(1), share: share, at: now)) { times.append(now) }
            }
            for i in times.indices where i + share < times.count {
                #expect(times[i + share] - times[i] > Self.window, "seed \(seed)")
            }
            let seconds = (now - at(0)).seconds
            #expect(Double(times.count) >= 0.97 * Double(share) * seconds.rounded(.down), "seed \(seed)")
        }
    }

    @Test("whoever waits as told passes")
    func retryAfter() {
        var memory = memory()
        for i in 0..<10 as Range<Int64> { memory.record(1, of: subject(1), at: at(i * 37)) }
        guard case .refuse(let wait) = memory.admit(subject(1), share: 10, at: at(400)) else {
            Issue.record("not refused")
            return
        }
        #expect(admitted(memory.admit(subject(1), share: 10, at: at(400) + wait)))
    }

    @Test("what cannot be remembered is forgotten and counted, and the rest stays right")
    func bounds() {
        var memory = memory(subjects: 100, groups: 150)
        for n in 0..<10_000 { memory.record(1, of: subject(n), at: at(0)) }
        #expect(memory.subjectCount <= 100)
        #expect(memory.evictions > 9_000)
        // One subject with more groups than there are: the youngest group takes the rest.
        for i in 0..<900 as Range<Int64> { memory.record(1, of: subject(5), at: at(10 + i)) }
        #expect(!admitted(memory.admit(subject(5), share: 900, at: at(910))))
        #expect(admitted(memory.admit(subject(5), share: 901, at: at(910))))
        for n in 0..<5_000 { #expect(admitted(memory.admit(subject(n), share: 1, at: at(5_000 + Int64(n))))) }
    }

    @Test("readings of the clock that go back a little do no harm")
    func backwards() {
        var memory = memory()
        for i in [0, 20, 10, 30, 5, 0, 40] as [Int64] { memory.record(1, of: subject(1), at: at(i)) }
        #expect(!admitted(memory.admit(subject(1), share: 7, at: at(50))))
        #expect(admitted(memory.admit(subject(1), share: 1, at: at(1_041))))
    }

    @Test("idle subjects are forgotten little by little")
    func forgets() {
        var memory = memory()
        for n in 0..<500 { memory.record(2, of: subject(n), at: at(0)) }
        for i in 0..<3_000 as Range<Int64> { memory.record(1, of: subject(7), at: at(2_000 + i)) }
        #expect(memory.subjectCount == 1)
        #expect(memory.evictions == 0)
    }
}

@Suite("The memory of full windows")
struct FullWindowMemoryTests {
    @Test("refuses until the oldest entry leaves, then lets one ask while the others wait")
    func oneAsks() {
        let memory = FullWindowMemory(seed: 1)
        #expect(memory.ask(subject(1), at: at(0)) == .unknown)
        memory.remember(subject(1), freesAt: at(300), emptyAt: at(900_000), at: at(0))
        #expect(memory.ask(subject(1), at: at(1)) == .full(retryAfter: .milliseconds(299)))
        #expect(memory.ask(subject(2), at: at(1)) == .unknown)
        #expect(memory.ask(subject(1), at: at(299)) == .full(retryAfter: .milliseconds(1)))
        #expect(memory.ask(subject(1), at: at(300)) == .mayAsk)
        #expect(memory.ask(subject(1), at: at(301)) == .full(retryAfter: .milliseconds(4)))
        #expect(memory.ask(subject(1), at: at(305)) == .mayAsk)
        memory.forget(subject(1))
        #expect(memory.ask(subject(1), at: at(306)) == .unknown)
    }

    @Test("nobody asks sooner than 5 ms after the last answer, and somebody does after a second at the latest")
    func bounds() {
        let memory = FullWindowMemory(seed: 1)
        memory.remember(subject(1), freesAt: at(1), emptyAt: at(900_000), at: at(0))
        #expect(memory.ask(subject(1), at: at(4)) == .full(retryAfter: .milliseconds(1)))
        #expect(memory.ask(subject(1), at: at(5)) == .mayAsk)
        memory.remember(subject(2), freesAt: at(60_000), emptyAt: at(900_000), at: at(0))
        #expect(memory.ask(subject(2), at: at(999)) == .full(retryAfter: .milliseconds(59_001)))
        #expect(memory.ask(subject(2), at: at(1_000)) == .mayAsk)
        memory.remember(subject(3), freesAt: MonotonicTime(nanoseconds: .max), emptyAt: at(900_000), at: at(0))
        #expect(memory.ask(subject(3), at: at(1_000)) == .mayAsk)
    }

    @Test("who comes when all that filled the window has left is nobody's follower: all may ask, none is refused")
    func empty() {
        let memory = FullWindowMemory(seed: 1)
        memory.remember(subject(1), freesAt: at(300), emptyAt: at(320), at: at(0))
        // A part has left: one asks, the others wait for what it hears.
        #expect(memory.ask(subject(1), at: at(310)) == .mayAsk)
        #expect(memory.ask(subject(1), at: at(310)) == .full(retryAfter: .milliseconds(5)))
        for _ in 0..<10 { #expect(memory.ask(subject(1), at: at(326)) == .unknown) }
        #expect(memory.count == 0)
        // Who hammers is there when the time has come, and finds that somebody asks.
        memory.remember(subject(1), freesAt: at(3_000), emptyAt: at(3_000), at: at(2_500))
        #expect(memory.ask(subject(1), at: at(3_004)) == .mayAsk)
        #expect(memory.ask(subject(1), at: at(3_006)) == .full(retryAfter: .milliseconds(3)))
        // A window of an hour that an operator has deleted: nobody has asked for a while.
        memory.remember(subject(1), freesAt: at(3_600_000), emptyAt: at(3_600_000), at: at(10_000))
        for _ in 0..<10 { #expect(memory.ask(subject(1), at: at(11_500)) == .unknown) }
    }

    @Test("a hot client costs at most one question in 5 ms, however many workers it meets")
    func hot() {
        let memory = FullWindowMemory(seed: 1)
        memory.remember(subject(1), freesAt: at(0), emptyAt: at(900_000), at: at(0))
        var questions = 0
        for microsecond in stride(from: 0, to: 1_000_000, by: 10) as StrideTo<Int64> {
            let now = at(0) + .microseconds(microsecond)
            for _ in 0..<4 where memory.ask(subject(1), at: now) == .mayAsk {
                questions += 1
                memory.remember(subject(1), freesAt: at(0), emptyAt: at(900_000), at: now)
            }
        }
        #expect(questions <= 200)
    }

    @Test("where several slots leave between two questions, one waits for the last moment, and the others are refused")
    func lastMoment() {
        let memory = FullWindowMemory(seed: 1)
        memory.remember(subject(1), freesAt: at(1), emptyAt: at(900), pace: .milliseconds(1), at: at(0))
        #expect(memory.ask(subject(1), at: at(3)) == .full(retryAfter: .milliseconds(2)))
        #expect(!memory.isSoon(subject(1), at: at(3)) && memory.isSoon(subject(1), at: at(4)))
        #expect(memory.ask(subject(1), at: at(4)) == .mayAskSoon(at: at(5)))
        #expect(memory.ask(subject(1), at: at(4)) == .full(retryAfter: .milliseconds(6)))
        #expect(memory.ask(subject(1), at: at(8)) == .full(retryAfter: .milliseconds(2)))
        // Nothing was heard of the first.
        #expect(memory.ask(subject(1), at: at(9)) == .mayAskSoon(at: at(10)))
        // A slot in 5 ms or less has one who asks for it.
        memory.remember(subject(2), freesAt: at(1), emptyAt: at(900), pace: .milliseconds(5), at: at(0))
        #expect(memory.ask(subject(2), at: at(4)) == .full(retryAfter: .milliseconds(1)))
        // A timeout of a millisecond leaves a tenth of it.
        let hasty = FullWindowMemory(seed: 1, timeout: .milliseconds(1))
        hasty.remember(subject(1), freesAt: at(1), emptyAt: at(900), pace: .milliseconds(1), at: at(0))
        #expect(hasty.ask(subject(1), at: at(4)) == .full(retryAfter: .milliseconds(1)))
        #expect(hasty.ask(subject(1), at: at(5) - .microseconds(100)) == .mayAskSoon(at: at(5)))
    }

    @Test(
        "while somebody hammers who has found room, one asks at a time, when half of what was taken would have left",
        arguments: [49, 50])
    func hammering(refusals: Int) {
        let memory = FullWindowMemory(seed: 1)
        func hammer(_ subject: SubjectKey) {
            // Five slots leave in 5 ms; ten times as many are refused in that time, or one less.
            memory.remember(subject, freesAt: at(1), emptyAt: at(900), pace: .milliseconds(1), at: at(0))
            for _ in 0..<refusals { _ = memory.ask(subject, at: at(1)) }
            #expect(memory.ask(subject, at: at(5)) == .mayAsk)
        }
        hammer(subject(1))
        memory.foundRoom(subject(1), taken: 6, pace: .milliseconds(1), sentAt: at(5), at: at(6))
        guard refusals == 50 else {
            #expect(memory.count == 0)
            return
        }
        #expect(memory.isSoon(subject(1), at: at(6)))
        #expect(memory.ask(subject(1), at: at(6)) == .mayAskSoon(at: at(8)))
        #expect(memory.ask(subject(1), at: at(7)) == .full(retryAfter: .milliseconds(6)))
        #expect(memory.askOn(subject(1), at: at(7)) == .full(retryAfter: .milliseconds(6)))
        // Those who have gathered behind it go on as one. Nobody waits longer than 5 ms.
        memory.foundRoom(subject(1), taken: 100, pace: .milliseconds(1), sentAt: at(8), at: at(9))
        #expect(memory.askOn(subject(1), at: at(9)) == .mayAskSoon(at: at(13)))
        // Whoever takes so little that the answer comes later than the next question would be too slow for the limit.
        memory.foundRoom(subject(1), taken: 2, pace: .milliseconds(1), sentAt: at(13), at: at(14))
        for _ in 0..<3 { #expect(memory.ask(subject(1), at: at(14)) == .unknown) }
        // Whoever comes much later does not hammer any more.
        hammer(subject(2))
        memory.foundRoom(subject(2), taken: 6, pace: .milliseconds(1), sentAt: at(5), at: at(6))
        for _ in 0..<3 { #expect(memory.ask(subject(2), at: at(13)) == .unknown) }
    }

    @Test("room is bounded")
    func room() {
        let memory = FullWindowMemory(seed: 1, subjectsMax: 640)
        for n in 0..<50_000 { memory.remember(subject(n), freesAt: at(500), emptyAt: at(900_000), at: at(0)) }
        #expect(memory.count <= 640)
    }
}

@Suite("Tables of subjects")
struct SubjectTableTests {
    @Test("holds what a dictionary holds, through random insertions, removals and sweeps")
    func model() {
        let seed = SystemClock.random64()
        var random = SplitMix64(seed: seed)
        var table = SubjectTable<Int>(countMax: 200, seed: seed)
        var model: [SubjectKey: Int] = [:]
        for step in 0..<50_000 {
            let key = subject(Int.random(in: 0..<400, using: &random))
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                if let place = table.find(key) {
                    table[place] = step
                    model[key] = step
                } else if table.insert(key, step) != nil {
                    model[key] = step
                } else {
                    #expect(model.count == 200, "seed \(seed)")
                }
            case 5..<8:
                table.remove(key)
                model[key] = nil
            case 8:
                if let gone = table.sweep({ $0 % 3 == 0 }) {
                    #expect(gone % 3 == 0)
                    model = model.filter { $0.value != gone }
                }
            default:
                if table.isFull, let gone = table.evict() { model = model.filter { $0.value != gone } }
            }
            #expect(table.count == model.count, "seed \(seed) step \(step)")
            #expect(table.find(key).map { table[$0] } == model[key], "seed \(seed) step \(step)")
        }
        for (key, value) in model { #expect(table.find(key).map { table[$0] } == value) }
    }
}

@Suite("When Redis is worth waiting for")
struct LossBreakerTests {
    @Test("three losses in a row end the waiting, an answer between them does not let it come to that")
    func losses() {
        var breaker = LossBreaker()
        #expect(!breaker.mayAsk)
        breaker.connected()
        for _ in 0..<5 {
            breaker.timedOut()
            breaker.timedOut()
            #expect(breaker.mayAsk)
            breaker.answered()
        }
        for _ in 0..<3 { breaker.timedOut() }
        #expect(breaker.state == .suspended)
        breaker.answered()
        breaker.timedOut()
        #expect(!breaker.mayAsk)
    }

    @Test("a probe that is answered in time ends the suspension, a slow one does not")
    func probes() {
        var breaker = LossBreaker()
        breaker.connected()
        breaker.refused()
        #expect(breaker.state == .suspended)
        breaker.probeAnswered(inTime: false)
        #expect(breaker.state == .suspended)
        breaker.probeAnswered(inTime: true)
        #expect(breaker.mayAsk)
        breaker.disconnected()
        breaker.probeAnswered(inTime: true)
        breaker.answered()
        breaker.refused()
        #expect(breaker.state == .disconnected)
    }
}

@Suite("Response fields")
struct RateLimitFieldsTests {
    @Test(
        "say when to come again, in whole seconds, never too early",
        arguments: [
            (0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (59_000, 59), (59_999, 60), (-5, 1),
        ] as [(Int64, Int)])
    func retryAfter(milliseconds: Int64, seconds: Int) {
        let policy = Policy(name: "default", limit: 100, window: .seconds(1), burst: 10)
        var output = ByteBuffer()
        RateLimitFields([policy]).write(retryAfter: .milliseconds(milliseconds), to: &output)
        #expect(
            output.text == "Retry-After: \(seconds)\r\nRateLimit-Policy: \"default\";q=100;w=1\r\n"
                + "RateLimit: \"default\";r=0;t=\(seconds)\r\n")
    }

    @Test("a wait beyond all bounds is written, not trapped upon")
    func extreme() {
        var output = ByteBuffer()
        RateLimitFields([Policy(name: "p", limit: 1, window: .max, burst: 1)]).write(retryAfter: .max, to: &output)
        #expect(output.text.contains("Retry-After: 92233720"))
    }
}
