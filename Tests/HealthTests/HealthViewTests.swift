import Health
import Membership
import Primitives
import Testing

private func votes(_ live: Int, probe: Int = 0, traffic: Int = 0) -> Votes {
    var votes = Votes(live: live)
    votes.downByProbe = probe
    votes.downByTraffic = traffic
    return votes
}

@Suite struct HealthViewTests {
    @Test(
        "a quorum is at least one node and at most all",
        arguments: [
            (Quorum.majority, 0, 1), (.majority, 1, 1), (.majority, 2, 2), (.majority, 3, 2), (.majority, 4, 3),
            (.majority, 5, 3), (.any, 5, 1), (.any, 0, 1), (.count(2), 5, 2), (.count(9), 5, 5), (.count(0), 5, 1),
            (.count(.min), 5, 1), (.count(.max), 0, 1),
        ])
    func quorum(quorum: Quorum, live: Int, needed: Int) {
        #expect(quorum.needed(live: live) == needed)
    }

    @Test(
        "a backend is down when enough living nodes say so",
        arguments: [
            // One backend beside a healthy one: live, probe votes, traffic votes, quorum, expected.
            (3, 1, 0, Quorum.majority, AgreedState.up), (3, 2, 0, .majority, .down), (3, 1, 1, .majority, .down),
            (3, 0, 2, .majority, .down), (2, 1, 0, .majority, .up), (2, 2, 0, .majority, .down),
            (1, 1, 0, .majority, .down), (5, 1, 0, .any, .down), (5, 0, 1, .any, .down), (5, 0, 0, .any, .up),
            (5, 2, 0, .count(3), .up), (5, 2, 1, .count(3), .down), (2, 2, 0, .count(9), .down),
        ])
    func agreement(live: Int, probe: Int, traffic: Int, quorum: Quorum, expected: AgreedState) {
        let backends = [votes(live, probe: probe, traffic: traffic), votes(live)]
        #expect(HealthView.agree(backends, ViewRules(quorum: quorum)) == [expected, .up])
    }

    @Test(
        "traffic alone never takes the last backend, probes may take all",
        arguments: [
            ([votes(3, probe: 2)], [AgreedState.down]),
            ([votes(3, traffic: 3)], [.kept]),
            ([votes(3, probe: 1, traffic: 2)], [.kept]),
            ([votes(3, probe: 2, traffic: 1)], [.down]),
            ([votes(3, probe: 3), votes(3, traffic: 3)], [.down, .kept]),
            ([votes(3, traffic: 2), votes(3, traffic: 3)], [.kept, .kept]),
            ([votes(3, traffic: 2), votes(3, traffic: 1)], [.down, .up]),
            ([votes(3, probe: 3), votes(3, probe: 2)], [.down, .down]),
            ([], []),
        ])
    func last(backends: [Votes], expected: [AgreedState]) {
        #expect(HealthView.agree(backends, ViewRules(quorum: .majority)) == expected)
    }

    @Test("a node avoids what it judges down itself, and says that it is alone with it")
    func avoided() {
        let conditions = HealthView.assess(
            [votes(3, probe: 1), votes(3)], own: [.downByProbe, .up], ViewRules(quorum: .majority))
        #expect(conditions == [.avoidedHere(down: 1, live: 3), .usable(down: 0, live: 3)])
        #expect(conditions.map(\.isAvailable) == [false, true])
        #expect(conditions[0].description == "avoided by this node alone (1 of 3 nodes judge it down)")
    }

    private static let later = BackendMonitor.Standing.downByTraffic(until: MonotonicTime(nanoseconds: 1))

    @Test(
        "what one node avoids for itself does not leave it without a backend by traffic alone",
        arguments: [
            // votes, own standings, which are available
            ([votes(3, traffic: 1)], [later], [true]),
            ([votes(3, probe: 1)], [.downByProbe], [false]),
            ([votes(3, traffic: 2), votes(3, probe: 1)], [.up, .downByProbe], [true, false]),
            ([votes(3, traffic: 3), votes(3, traffic: 2)], [later, .up], [true, true]),
            ([votes(3, probe: 3), votes(3, traffic: 1)], [.downByProbe, later], [false, true]),
            ([votes(3, traffic: 1), votes(3)], [later, .up], [false, true]),
            ([votes(3, probe: 2), votes(3, probe: 2)], [.up, .up], [false, false]),
        ] as [([Votes], [BackendMonitor.Standing], [Bool])])
    func localLast(backends: [Votes], own: [BackendMonitor.Standing], available: [Bool]) {
        #expect(HealthView.assess(backends, own: own, ViewRules(quorum: .majority)).map(\.isAvailable) == available)
    }

    private static func condemned(_ down: Int, at since: Int64) -> Votes {
        var all = votes(3, traffic: down)
        all.downSince = (0..<down).map { UnixTime(milliseconds: since + Int64($0)) }
        return all
    }

    @Test("no more than a share of a service is down by traffic alone, the most and the first condemned, one at least")
    func maxEjected() {
        let four = [
            Self.condemned(2, at: 30), Self.condemned(2, at: 10), Self.condemned(3, at: 50), votes(3),
        ]
        func agree(_ percent: Int) -> [AgreedState] {
            HealthView.agree(four, ViewRules(quorum: .majority, maxEjected: percent))
        }
        #expect(agree(100) == [.down, .down, .down, .up])
        #expect(agree(50) == [.kept, .down, .down, .up])
        #expect(agree(25) == [.kept, .kept, .down, .up])
        #expect(agree(1) == [.kept, .kept, .down, .up])
        #expect(agree(0) == [.kept, .kept, .kept, .up])
        // Probes speak for the backend itself, and their word is not bounded.
        let dead = [votes(3, probe: 2), votes(3, probe: 3), Self.condemned(2, at: 1), votes(3)]
        #expect(
            HealthView.agree(dead, ViewRules(quorum: .majority, maxEjected: 25)) == [.down, .down, .down, .up])
        let own = HealthView.assess(
            [votes(3), votes(3), votes(3), votes(3)], own: [Self.later, Self.later, Self.later, .up],
            ViewRules(quorum: .majority, maxEjected: 50))
        #expect(own.map(\.isAvailable) == [false, false, true, true])
        #expect(own[2] == .keptByShare(down: 0, live: 3))
    }

    @Test("an operator's word stands above the votes, and counts for what is left of a service")
    func words() {
        func word(_ word: OperatorWord.Word) -> OperatorWord {
            OperatorWord(word, by: "me", at: UnixTime(milliseconds: 1))
        }
        func assess(_ votes: [Votes], _ words: [OperatorWord?]) -> [Bool] {
            HealthView.assess(
                votes, own: votes.map { _ in .up }, words: words, ViewRules(quorum: .majority)
            ).map(\.isAvailable)
        }
        #expect(assess([votes(3, probe: 3), votes(3)], [word(.up), word(.down)]) == [true, false])
        #expect(assess([votes(3), votes(3)], [word(.drain), word(.auto)]) == [false, true])
        // The other one is drained, so this is the last.
        #expect(assess([votes(3, traffic: 3), votes(3)], [nil, word(.drain)]) == [true, false])
        #expect(assess([votes(3, traffic: 3), votes(3)], [nil, nil]) == [false, true])
    }

    @Test("the agreed part does not depend on the order of votes, and more down votes never bring a backend back")
    func monotone() {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        for _ in 0..<5_000 {
            let live = Int.random(in: 1...5, using: &random)
            let quorum = [Quorum.majority, .any, .count(3)].randomElement(using: &random) ?? .majority
            var backends = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                let probe = Int.random(in: 0...live, using: &random)
                return votes(live, probe: probe, traffic: Int.random(in: 0...(live - probe), using: &random))
            }
            let before = HealthView.agree(backends, ViewRules(quorum: quorum))
            #expect(HealthView.agree(backends.reversed(), ViewRules(quorum: quorum)) == before.reversed())
            let index = Int.random(in: 0..<backends.count, using: &random)
            guard backends[index].down < live else { continue }
            backends[index].downByProbe += 1
            let after = HealthView.agree(backends, ViewRules(quorum: quorum))
            if before[index] == .down { #expect(after[index] != .up, "seed \(seed)") }
            if before[index] == .up {
                #expect(after[index] != .kept || backends[index].downByTraffic > 0, "seed \(seed)")
            }
        }
    }
}

@Suite struct VerdictTableTests {
    private let author = node("a")

    @Test("lower and equal sequences of one run are old")
    func sequence() {
        var table = VerdictTable()
        #expect(table.merge(verdict(.down, sequence: 5), of: author) == .applied(before: .up))
        for sequence: UInt64 in [0, 4, 5] {
            #expect(table.merge(verdict(.up, sequence: sequence), of: author) == .old)
        }
        #expect(table.verdict(of: author)?.state == .down)
        #expect(table.merge(verdict(.up, sequence: 6), of: author) == .applied(before: .down))
    }

    @Test("another run replaces, and late news of the run before are old")
    func boot() {
        var table = VerdictTable()
        _ = table.merge(verdict(.down, boot: 1, sequence: 50), of: author)
        #expect(table.merge(verdict(.up, boot: 2, sequence: 1), of: author) == .applied(before: .down))
        #expect(table.merge(verdict(.down, boot: 1, sequence: 49), of: author) == .old)
        #expect(table.merge(verdict(.down, boot: 1, sequence: 50), of: author) == .old)
        #expect(table.verdict(of: author)?.boot == BootID(2))
        // Two processes under one id: the one that goes on speaking is heard.
        #expect(table.merge(verdict(.down, boot: 1, sequence: 51), of: author) == .applied(before: .up))
    }

    @Test("any order and any repetition of one run's news ends with the last")
    func reordered() {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        let sent = (1...20).map { verdict($0 % 3 == 0 ? .up : .down, sequence: UInt64($0)) }
        for _ in 0..<200 {
            var table = VerdictTable()
            for news in (sent + sent).shuffled(using: &random) { _ = table.merge(news, of: author) }
            #expect(table.verdict(of: author) == sent.last, "seed \(seed)")
        }
    }

    @Test("of two runs the hash has the later, unless the other was heard of while it was read")
    func readings() {
        let (before, during, after) = (moment(.zero), moment(.seconds(1)), moment(.seconds(2)))
        for (heard, expected) in [
            (before, MergeOutcome.applied(before: .up)), (during, .applied(before: .up)), (after, .old),
        ] {
            var table = VerdictTable()
            _ = table.merge(verdict(.up, boot: 2), of: author, at: heard.monotonic)
            #expect(table.read(verdict(.down, boot: 1), of: author, requested: during.monotonic) == expected)
            // However it came, the next reading puts it right.
            _ = table.read(verdict(.up, boot: 2), of: author, requested: moment(.seconds(10)).monotonic)
            #expect(table.verdict(of: author)?.boot == BootID(2))
        }
    }

    @Test("within one run the sequence decides, whether heard or read")
    func readSequence() {
        var table = VerdictTable()
        _ = table.merge(verdict(.up, sequence: 5), of: author)
        #expect(table.read(verdict(.down, sequence: 4), of: author, requested: .distantFuture) == .old)
        #expect(
            table.read(verdict(.down, sequence: 6), of: author, requested: moment(.zero).monotonic)
                == .applied(before: .up))
    }

    @Test("a message that two readings in a row are behind of was not its author's, and mutes him no longer")
    func ahead() {
        var table = VerdictTable()
        func read(_ sequence: UInt64, at seconds: Int64) -> MergeOutcome {
            table.read(verdict(.up, sequence: sequence), of: node("x"), requested: moment(.seconds(seconds)).monotonic)
        }
        _ = table.merge(verdict(.down, sequence: .max), of: node("x"), at: moment(.seconds(5)).monotonic)
        // Asked for before the message was heard: it may be what came later.
        #expect(read(7, at: 4) == .old)
        #expect(read(7, at: 4) == .old)
        #expect(read(7, at: 6) == .old)
        #expect(table.verdict(of: node("x"))?.state == .down)
        #expect(read(7, at: 16) == .applied(before: .down))
        #expect(table.merge(verdict(.down, sequence: 8), of: node("x"), at: moment(.seconds(17)).monotonic) != .old)
        // One reading that is behind, as after a failover, changes nothing when the next one has caught up.
        #expect(read(7, at: 20) == .old)
        #expect(read(8, at: 30) == .old)
        #expect(read(7, at: 40) == .old)
        #expect(table.verdict(of: node("x"))?.sequence == 8)
    }

    @Test("who is missing in two readings in a row is forgotten, but not this node")
    func missing() {
        var table = VerdictTable()
        for name in ["me", "steady", "late", "gone"] { _ = table.merge(verdict(.down), of: node(name)) }
        table.found([node("steady")], butAlways: node("me"))
        #expect(table.nodes.count == 4)
        _ = table.merge(verdict(.down, sequence: 2), of: node("late"))
        table.found([node("steady")], butAlways: node("me"))
        #expect(table.nodes == ["late", "me", "steady"].map(node))
        table.found([node("steady"), node("late")], butAlways: node("me"))
        table.found([node("steady")], butAlways: node("me"))
        #expect(table.nodes == ["late", "me", "steady"].map(node))
    }

    @Test("only living nodes are counted, by the kind of their evidence")
    func counting() {
        var table = VerdictTable()
        _ = table.merge(verdict(.down, kind: .probe, since: 30), of: node("a"))
        _ = table.merge(verdict(.down, kind: .traffic, since: 10), of: node("b"))
        _ = table.merge(verdict(.up), of: node("c"))
        _ = table.merge(verdict(.down, since: 20), of: node("gone"))
        let votes = table.count(live: [node("a"), node("b"), node("c"), node("silent")])
        #expect(votes.live == 4)
        #expect(votes.downByProbe == 1)
        #expect(votes.downByTraffic == 1)
        #expect(votes.downSince == [UnixTime(milliseconds: 10), UnixTime(milliseconds: 30)])
    }

    @Test("invented authors do not fill the memory")
    func flood() {
        var table = VerdictTable()
        for index in 0..<5_000 { _ = table.merge(verdict(.down), of: node("x\(index)")) }
        #expect(table.nodes.count == MembershipView.membersMax)
        #expect(table.merge(verdict(.down), of: node("late")) == .tooMany)
        #expect(table.merge(verdict(.up, sequence: 2), of: node("x0")) == .applied(before: .down))
    }
}
