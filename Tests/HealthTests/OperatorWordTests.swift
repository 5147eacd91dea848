import Health
import Membership
import Primitives
import Testing

private let users = "users"
private let first = BackendKey(service: users, url: "http://a:1|x")
private let second = BackendKey(service: users, url: "http://b:1")

private func word(_ word: OperatorWord.Word, at time: Int64 = 5, by name: String = "ops@host") -> OperatorWord {
    OperatorWord(word, by: name, at: UnixTime(milliseconds: time))
}

private func machine(joined: Bool = true) -> (HealthMachine, [HealthAction]) {
    var machine = HealthMachine(
        node: node("me"), boot: BootID(1),
        services: [WatchedService(name: users, settings: HealthSettings(), urls: [first.url, second.url])], seed: 1,
        now: moment(.zero))
    var actions: [HealthAction] = []
    if joined { machine.redisRestored(at: moment(.zero), into: &actions) }
    return (machine, [])
}

private func field(_ key: BackendKey, _ word: OperatorWord) -> (field: String, value: [UInt8]) {
    (HealthKeys.operatorField(key), Array(word.json.utf8))
}

@Suite struct OperatorWordTests {
    @Test("a word is written and read back as it was; what is no word is refused")
    func json() throws {
        let said = word(.drain)
        #expect(said.json == "{\"at\":5,\"by\":\"ops@host\",\"word\":\"drain\"}")
        #expect(try OperatorWord(json: Array(said.json.utf8)) == said)
        #expect(OperatorWord(.up, by: "a\"b\nc d", at: said.at).by == "abcd")
        #expect(OperatorWord(.up, by: String(repeating: "x", count: 999), at: said.at).by.count == 64)
        for text in ["", "{}", "{\"word\":\"fly\",\"by\":\"a\",\"at\":1}", String(repeating: " ", count: 9_999)] {
            #expect(throws: HealthFormatError.self) { try OperatorWord(json: Array(text.utf8)) }
        }
        #expect(try HealthKeys.parse(operatorField: HealthKeys.operatorField(first)) == first)
        for text in ["", "|", "a|", "|a", "a"] {
            #expect(throws: HealthFormatError.self) { try HealthKeys.parse(operatorField: text) }
        }
    }

    @Test("what an operator says holds at once, is written, is listed, and is taken back by auto")
    func saying() {
        var (machine, actions) = machine()
        #expect(machine.say(word(.drain), of: first, at: moment(.zero), into: &actions) == true)
        #expect(actions.contains(.writeWord(first, word(.drain))))
        #expect(machine.condition(of: first)?.isAvailable == false)
        #expect(machine.listing[0].state == .draining)
        #expect(machine.listing[0].word == word(.drain))
        #expect(machine.listing[0].since == UnixTime(milliseconds: 5))
        #expect(machine.listing[0].changes == 1)
        let stranger = BackendKey(service: users, url: "http://c:1")
        #expect(machine.say(word(.drain), of: stranger, at: moment(.zero), into: &actions) == false)
        #expect(machine.say(word(.auto, at: 6), of: first, at: moment(.zero), into: &actions) == true)
        #expect(machine.listing[0].state == .up)
        #expect(machine.listing[0].word == nil)
        #expect(machine.condition(of: first)?.isAvailable == true)
    }

    @Test("probes and requests change nothing of a backend that is held")
    func held() {
        var (machine, actions) = machine()
        _ = machine.say(word(.up), of: first, at: moment(.zero), into: &actions)
        for _ in 0..<5 { machine.trafficFailed(first, refused, at: moment(.seconds(1)), into: &actions) }
        #expect(machine.condition(of: first)?.isAvailable == true)
        _ = machine.say(word(.auto, at: 6), of: first, at: moment(.seconds(2)), into: &actions)
        #expect(machine.condition(of: first)?.isAvailable == false)
    }

    @Test("the hash tells the words of others; the later word counts, and one that Redis has lost is written again")
    func hash() {
        var (machine, actions) = machine()
        machine.words([field(first, word(.down))], at: moment(.zero), into: &actions)
        #expect(machine.listing[0].state == .down)
        #expect(!actions.contains { if case .writeWord = $0 { true } else { false } })
        machine.words([field(first, word(.up, at: 4))], at: moment(.zero), into: &actions)
        #expect(machine.listing[0].state == .down)
        #expect(actions.contains(.writeWord(first, word(.down))))
        actions = []
        machine.words([], at: moment(.zero), into: &actions)
        #expect(actions.contains(.writeWord(first, word(.down))))
        // Taken back while this node was away.
        machine.redisLost(at: moment(.zero), into: &actions)
        #expect(machine.listing[0].state == .down)
        machine.redisRestored(at: moment(.zero), into: &actions)
        machine.words([field(first, word(.auto, at: 9))], at: moment(.zero), into: &actions)
        #expect(machine.listing[0].state == .up)
        machine.words([("nonsense", [1]), field(first, word(.auto, at: 9))], at: moment(.zero), into: &actions)
        #expect(actions.last == .log(.ignored(count: 1, last: .badField)))
    }

    @Test("a word is later than the one that it takes back, whosever clock is wrong", arguments: [4, 5, 9_999, .max])
    func clocks(before: Int64) {
        var (machine, actions) = machine()
        machine.words([field(first, word(.down, at: before))], at: moment(.zero), into: &actions)
        #expect(machine.say(word(.auto, at: 5), of: first, at: moment(.zero), into: &actions))
        let said = actions.compactMap { action -> OperatorWord? in
            if case .writeWord(first, let word) = action { return word }
            return nil
        }
        #expect(said.count == 1)
        #expect(said[0].word == .auto)
        #expect(said[0].at.milliseconds > before || before == .max)
        // The others take it, and so does this node when it reads it again.
        machine.words([field(first, said[0])], at: moment(.zero), into: &actions)
        #expect(machine.listing[0].word == nil)
        #expect(machine.condition(of: first)?.isAvailable == true)
    }

    @Test("said without Redis, it is written when Redis is there")
    func alone() {
        var (machine, actions) = machine(joined: false)
        _ = machine.say(word(.drain), of: second, at: moment(.zero), into: &actions)
        #expect(!actions.contains { if case .writeWord = $0 { true } else { false } })
        machine.redisRestored(at: moment(.zero), into: &actions)
        machine.words([], at: moment(.zero), into: &actions)
        #expect(actions.contains(.writeWord(second, word(.drain))))
    }
}

@Suite struct IsolationTests {
    @Test("a node that judges everything down is not counted, unless all do")
    func cutOff() {
        var (machine, actions) = machine()
        machine.liveNodesChanged(["x", "y"].map(node), at: moment(.zero), into: &actions)
        machine.snapshot(service: users, [], at: moment(.zero), into: &actions)
        func hear(_ author: String, _ key: BackendKey, _ sequence: UInt64, _ state: VerdictState = .down) {
            machine.news(
                HealthNews(backend: key, node: node(author), verdict: verdict(state, sequence: sequence)),
                at: moment(.zero), into: &actions)
        }
        hear("x", first, 1)
        #expect(machine.condition(of: first) == .usable(down: 1, live: 3))
        hear("x", second, 2)
        #expect(machine.condition(of: first) == .usable(down: 0, live: 2))
        #expect(actions.contains(.log(.isolated(node("x"), true))))
        // One more word against the first is one of the two that count.
        hear("y", first, 1)
        #expect(machine.condition(of: first) == .usable(down: 1, live: 2))
        // Its path is whole again.
        hear("x", second, 3, .up)
        #expect(actions.contains(.log(.isolated(node("x"), false))))
        #expect(machine.condition(of: first) == .downForAll(down: 2, live: 3))
    }

    @Test("where all nodes judge everything down, everything is")
    func allDown() {
        var (machine, actions) = machine()
        machine.liveNodesChanged([node("x")], at: moment(.zero), into: &actions)
        machine.snapshot(service: users, [], at: moment(.zero), into: &actions)
        for key in [first, second] {
            machine.news(
                HealthNews(backend: key, node: node("x"), verdict: verdict(.down, sequence: key == first ? 1 : 2)),
                at: moment(.zero), into: &actions)
        }
        var failing = true
        while failing {
            let probes = actions.compactMap { action -> (BackendKey, UInt64)? in
                if case .probe(let key, let attempt, _) = action { return (key, attempt) }
                return nil
            }
            actions = []
            failing = !probes.isEmpty
            for (key, attempt) in probes {
                machine.probeFinished(key, attempt: attempt, .failed(refused), at: moment(.seconds(1)), into: &actions)
            }
        }
        #expect(machine.listing.allSatisfy { $0.state == .down && $0.votes.allSatisfy { $0.vote == .down } })
    }
}

@Suite struct FailureWindowTests {
    private func time(_ seconds: Int64) -> MonotonicTime { moment(.seconds(seconds)).monotonic }

    @Test("a share of failures condemns when there are enough requests, in a row or not, and then counts anew")
    func share() {
        var window = FailureWindow(window: .seconds(10), sharePercent: 50, requestsMin: 20)
        #expect(window.sample(answered: 1_000, failed: 900, at: time(0)) == nil)
        #expect(window.sample(answered: 1_019, failed: 919, at: time(1)) == nil)
        let found = window.sample(answered: 1_020, failed: 910, at: time(2))
        #expect(found?.answered == 20)
        #expect(found?.failed == 10)
        #expect(window.sample(answered: 1_020, failed: 910, at: time(3)) == nil)
        #expect(window.sample(answered: 1_040, failed: 919, at: time(4)) == nil)
        #expect(window.sample(answered: 1_041, failed: 921, at: time(5)) != nil)
    }

    @Test("what is older than the window counts no more")
    func sliding() {
        var window = FailureWindow(window: .seconds(10), sharePercent: 50, requestsMin: 10)
        var (answered, failed) = (UInt64(0), UInt64(0))
        for second in 0..<100 as Range<Int64> {
            // 40 % fail, and for the first 20 s none.
            answered += 10
            failed += second < 20 ? 0 : 4
            #expect(window.sample(answered: answered, failed: failed, at: time(second)) == nil)
        }
        for second in 100..<104 as Range<Int64> {
            answered += 10
            failed += 10
            let found = window.sample(answered: answered, failed: failed, at: time(second))
            // 8 s at 40 % and 2 s at 100 % make 52 %.
            #expect((found != nil) == (second == 101))
            if found != nil { break }
        }
    }
}
