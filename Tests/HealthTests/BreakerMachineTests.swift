import Health
import Primitives
import Testing

private let key = BackendKey(service: "users", url: "http://a:1")

/// One node's breakers in the hands of a test.
private struct Rig {
    var machine = BreakerMachine()
    var time = TimeSpan.zero
    var actions: [BreakerAction] = []

    var now: MonotonicTime { moment(time).monotonic }
    var state: BreakerState { machine.state(of: key, at: now) }

    init(joined: Bool = true) {
        var settings = BreakerSettings()
        settings.failures = 3
        settings.openFor = .seconds(30)
        settings.trialMax = .seconds(10)
        settings.claimMax = .milliseconds(50)
        machine.watch(key, settings)
        if joined { machine.joined(true, at: now, into: &actions) }
    }

    mutating func fail(_ times: Int = 3, reached: Bool = true) {
        for _ in 0..<times { machine.failed(key, reached: reached, evidence: "status 500", at: now, into: &actions) }
    }

    mutating func succeed(usedOpen: Bool = false) {
        machine.succeeded(key, usedOpen: usedOpen, at: now, into: &actions)
    }

    /// Asks for a trial; `nil` where Redis has to decide first.
    mutating func want() -> Bool? {
        let before = actions.count
        machine.wanted(key, at: now, into: &actions)
        for case .answer(_, let granted) in actions[before...] { return granted }
        return nil
    }

    mutating func claimed(_ won: Bool?, number: UInt64 = 1) -> Bool? {
        let before = actions.count
        machine.claimed(key, number: number, won: won, at: now, into: &actions)
        for case .answer(_, let granted) in actions[before...] { return granted }
        return nil
    }

    mutating func end(_ succeeded: Bool) { end(succeeded ? .succeeded : .failed) }

    mutating func end(_ outcome: TrialOutcome) {
        machine.trialEnded(key, outcome, evidence: "the trial", at: now, into: &actions)
    }

    mutating func hear(_ number: UInt64) {
        machine.heard(BreakerNews(backend: key, number: number, evidence: "told"), at: now, into: &actions)
    }

    mutating func pass(_ span: TimeSpan) {
        time = time + span
        machine.tick(at: now, into: &actions)
    }

    /// What those were told who asked.
    var answers: [Bool] {
        actions.compactMap { if case .answer(_, let granted) = $0 { granted } else { nil } }
    }
    var released: [UInt64] {
        actions.compactMap { if case .release(_, let number) = $0 { number } else { nil } }
    }
    var published: [UInt64] {
        actions.compactMap { if case .publish(let news) = $0 { news.number } else { nil } }
    }
    var changes: [BreakerState] {
        actions.compactMap { if case .changed(_, let state, _) = $0 { state } else { nil } }
    }
}

@Suite struct BreakerMachineTests {
    @Test("failures in a row open it for the cluster; one trial after its time closes it or opens it anew")
    func walk() {
        var rig = Rig()
        rig.fail(2)
        rig.succeed()
        rig.fail(2)
        #expect(rig.state == .closed)
        rig.fail(1)
        #expect(rig.state == .open)
        #expect(rig.published == [1])
        rig.fail(5)
        #expect(rig.published == [1])
        rig.pass(.seconds(29))
        #expect(rig.want() == false)
        rig.pass(.seconds(1))
        #expect(rig.state == .halfOpen)
        #expect(rig.want() == nil)
        #expect(rig.actions.last == .claim(key, number: 1, lifetime: .seconds(65)))
        // Whoever asks meanwhile has no trial.
        #expect(rig.want() == false)
        #expect(rig.claimed(true) == true)
        #expect(rig.want() == false)
        rig.end(false)
        #expect(rig.state == .open)
        #expect(rig.published == [1, 3])
        rig.pass(.seconds(30))
        #expect(rig.want() == nil)
        #expect(rig.claimed(true, number: 3) == true)
        rig.end(true)
        #expect(rig.state == .closed)
        #expect(rig.published == [1, 3, 4])
        #expect(rig.changes == [.open, .halfOpen, .open, .halfOpen, .closed])
        #expect(rig.machine.changes(of: key) == 5)
    }

    @Test("who comes second has no trial, and asks again only when the first must have died")
    func second() {
        var rig = Rig()
        rig.fail()
        rig.pass(.seconds(30))
        #expect(rig.want() == nil)
        #expect(rig.claimed(false) == false)
        rig.pass(.seconds(29))
        #expect(rig.want() == false)
        rig.pass(.seconds(1))
        #expect(rig.want() == nil)
        // Redis did not answer: soon again.
        #expect(rig.claimed(nil) == false)
        rig.pass(.milliseconds(100))
        #expect(rig.want() == nil)
    }

    @Test("a claim that was won for a number of the past is worth nothing")
    func lateClaim() {
        var rig = Rig()
        rig.fail()
        rig.pass(.seconds(30))
        #expect(rig.want() == nil)
        rig.hear(3)
        // Who waits need not wait on.
        #expect(rig.answers == [false])
        #expect(rig.claimed(true, number: 1) == nil)
        #expect(rig.state == .open)
    }

    @Test("a request waits for Redis so long and no longer; what comes later is for the next one")
    func lateWord() {
        for won in [true, false, nil] {
            var rig = Rig()
            rig.fail()
            rig.pass(.seconds(30))
            #expect(rig.want() == nil)
            #expect(rig.machine.nextDeadline == rig.now + .milliseconds(50))
            rig.pass(.milliseconds(50))
            #expect(rig.answers == [false])
            // Nor does anybody else wait meanwhile.
            #expect(rig.want() == false)
            #expect(rig.claimed(won) == nil)
            rig.pass(.milliseconds(100))
            #expect(rig.want() == won)
            #expect(rig.state == .halfOpen)
        }
    }

    @Test("a claim that was won too late, and for which nobody asks, is given back")
    func unusedClaim() {
        var rig = Rig()
        rig.fail()
        rig.pass(.seconds(30))
        #expect(rig.want() == nil)
        rig.pass(.milliseconds(50))
        #expect(rig.claimed(true) == nil)
        rig.pass(.seconds(30))
        #expect(rig.released == [1])
        #expect(rig.want() == nil)
    }

    @Test("a trial that says nothing of the backend changes nothing, and the next request is the next trial")
    func voidTrial() {
        var rig = Rig()
        rig.fail()
        rig.pass(.seconds(30))
        for _ in 0..<3 {
            #expect(rig.want() == nil)
            #expect(rig.claimed(true) == true)
            rig.end(.void)
            #expect(rig.state == .halfOpen)
        }
        #expect(rig.released == [1, 1, 1])
        #expect(rig.published == [1])
        #expect(rig.changes == [.open, .halfOpen])

        // A trial of this node alone has claimed nothing.
        var alone = Rig()
        alone.fail(3, reached: false)
        alone.pass(.seconds(30))
        for _ in 0..<3 {
            #expect(alone.want() == true)
            alone.end(.void)
        }
        #expect(alone.released.isEmpty)
        #expect(alone.state == .halfOpen)
    }

    @Test("news of higher numbers count, others and forged ones do not")
    func heard() {
        var rig = Rig()
        rig.hear(1)
        #expect(rig.state == .open)
        rig.hear(2)
        #expect(rig.state == .closed)
        rig.hear(1)
        rig.hear(2)
        rig.hear(.max)
        #expect(rig.state == .closed)
        // Two that open at once make the same number.
        rig.fail()
        rig.hear(3)
        #expect(rig.published == [3])
        #expect(rig.changes == [.open, .closed, .open])
    }

    @Test("failures that did not reach the backend open it for this node alone")
    func path() {
        var rig = Rig()
        rig.fail(2, reached: false)
        rig.fail(1, reached: true)
        #expect(rig.state == .open)
        #expect(rig.published.isEmpty)
        rig.pass(.seconds(30))
        #expect(rig.want() == true)
        rig.end(false)
        #expect(rig.state == .open)
        rig.pass(.seconds(30))
        #expect(rig.want() == true)
        rig.end(true)
        #expect(rig.state == .closed)
        #expect(rig.published.isEmpty)
    }

    @Test("when probes reach the backend again, what only this node's path had opened is closed; the rest stays")
    func pathIsWhole() {
        var rig = Rig()
        rig.fail(3, reached: false)
        #expect(rig.state == .open)
        rig.machine.reachedAgain(key, at: rig.now, into: &rig.actions)
        #expect(rig.state == .closed)
        #expect(rig.changes == [.open, .closed])
        rig.fail(3, reached: true)
        rig.machine.reachedAgain(key, at: rig.now, into: &rig.actions)
        #expect(rig.state == .open)
        #expect(rig.published == [1])
    }

    @Test("without Redis a node has its own trial, and what it has found is told later")
    func alone() {
        var rig = Rig(joined: false)
        rig.fail()
        #expect(rig.published.isEmpty)
        rig.pass(.seconds(30))
        #expect(rig.want() == true)
        rig.machine.joined(true, at: rig.now, into: &rig.actions)
        rig.machine.read([], service: "users", at: rig.now, into: &rig.actions)
        #expect(rig.published == [1])
        rig.machine.read(
            [BreakerNews(backend: key, number: 4, evidence: "told")], service: "users", at: rig.now,
            into: &rig.actions)
        #expect(rig.state == .closed)
        #expect(rig.published == [1])
    }

    @Test("a trial that does not end has no result: its client may take for ever to send a body")
    func lostTrial() {
        var rig = Rig()
        rig.fail()
        rig.pass(.seconds(30))
        #expect(rig.want() == nil)
        #expect(rig.claimed(true) == true)
        #expect(rig.machine.nextDeadline == rig.now + .seconds(10))
        rig.pass(.seconds(10))
        #expect(rig.state == .halfOpen)
        #expect(rig.released == [1])
        rig.end(true)
        #expect(rig.state == .halfOpen)
    }

    @Test("a success of the last backend, which is used in spite of its breaker, closes it")
    func spared() {
        var rig = Rig()
        rig.fail()
        rig.succeed()
        #expect(rig.state == .open)
        rig.succeed(usedOpen: true)
        #expect(rig.state == .closed)
        #expect(rig.published == [1, 2])
    }

    @Test("who asks again and again does not keep the trial from whoever can have it when the first has died")
    func forgottenClaim() {
        var rig = Rig()
        rig.fail()
        rig.pass(.seconds(30))
        // Somebody claimed it and died; the key lives 65 s, and is not made to live longer by those who ask.
        for _ in 0..<2 {
            #expect(rig.want() == nil)
            #expect(rig.claimed(false) == false)
            rig.pass(.seconds(30))
        }
        #expect(rig.want() == nil)
        #expect(rig.claimed(true) == true)
        rig.end(true)
        #expect(rig.state == .closed)
    }

    @Test("a forged number that leaves none behind it takes the cluster's breaker away, not each node's own")
    func numbersUsedUp() {
        for forged in [BreakerNews.numberMax - 1, BreakerNews.numberMax] {
            var rig = Rig()
            rig.hear(forged)
            rig.succeed(usedOpen: true)
            rig.fail()
            #expect(rig.state == .open)
            #expect(rig.published.allSatisfy { $0 <= BreakerNews.numberMax })
            rig.pass(.seconds(30))
            #expect(rig.want() == true)
            rig.end(false)
            #expect(rig.state == .open)
            rig.pass(.seconds(30))
            #expect(rig.want() == true)
            rig.end(true)
            #expect(rig.state == .closed)
        }
    }

    @Test("news are written and read back; what has another shape is refused")
    func json() throws {
        let news = BreakerNews(backend: key, number: 7, evidence: "5 failed requests in a row: status 500")
        #expect(try BreakerNews(json: Array(news.json.utf8)) == news)
        #expect(news.json.contains("\"state\":\"open\""))
        let forged = BreakerNews(backend: key, number: .max, evidence: "")
        for text in ["", "{}", "[]", forged.json, String(repeating: " ", count: 5_000)] {
            #expect(throws: HealthFormatError.self) { try BreakerNews(json: Array(text.utf8)) }
        }
    }
}
