// While a node is cut off from Redis, the others keep its share of each limit free.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

private final class JointAsker: LimitRequester {
    var refused: [Bool] = []
    func limitDecided(token: UInt64, verdict: Verdict) { Issue.record("asked of several, answered by one") }
    func limitsDecided(token: UInt64, _ report: PolicyReport) { refused.append(report.isRefused) }
}

private func context(
    limit: Int, window: TimeSpan = .seconds(10), form: PolicyForm = .window, costMax: Int = 1,
    tellsRemaining: Bool = false, rule: LossRule = .share, boot: UInt64 = 0xb007
) -> LimiterContext {
    LimiterContext(
        policies: [
            Policy(name: "default", limit: limit, window: window, burst: limit, form: form, costMax: costMax)
        ],
        services: [], tellsRemaining: tellsRemaining, lossRule: rule, timeout: .milliseconds(50), boot: boot, seed: 5)
}

extension LimiterContext {
    /// One node of three is cut off.
    fileprivate func cutOff() { nodesChanged(running: 3, cutOff: 1, sharers: 3) }
}

@Suite("While a node is cut off from Redis")
struct CutOffTests {
    static let form = [PolicyForm.window, .buckets]

    @Test("the window and the shares make the limit and less than one a node, and something is left for the window")
    func sums() {
        let subject = SubjectKey(IPAddress(v4: 1))
        for limit in [1, 2, 3, 4, 5, 7, 10, 20, 99, 100, 1_000, 1_001, 1_000_000_000_000_000] {
            let context = context(limit: limit)
            for nodes in 1...7 {
                context.nodesChanged(running: nodes)
                #expect(context.keptFree(of: subject) == 0)
                let share = context.share(of: subject)
                for cutOff in 1..<max(2, nodes) where cutOff < nodes {
                    context.nodesChanged(running: nodes, cutOff: cutOff, sharers: nodes)
                    let slots = limit - context.keptFree(of: subject)
                    #expect(slots >= 1)
                    #expect(slots + cutOff * share >= limit)
                    #expect(slots + cutOff * share <= limit + cutOff)
                    #expect(context.share(of: subject) == share)
                }
            }
        }
    }

    @Test(
        "nodes that end or join meanwhile leave the share of who is cut off as it was; the others are left one at least",
        arguments: [(2, 1, 4, 30), (5, 1, 4, 30), (5, 2, 4, 60), (2, 1, 1, 60), (4, 3, 2, 90), (3, 1, 2, 60)])
    func sharers(running: Int, cutOff: Int, sharers: Int, keptFree: Int) {
        let context = context(limit: 120)
        context.nodesChanged(running: running, cutOff: cutOff, sharers: sharers)
        #expect(context.keptFree(of: SubjectKey(IPAddress(v4: 1))) == keptFree)
    }

    @Test(
        "nothing is kept free by another loss rule, nor of requests at once",
        arguments: [LossRule.open, .closed, .share])
    func onlyShares(rule: LossRule) {
        let context = context(limit: 30, form: rule == .share ? .leases : .window, rule: rule)
        context.cutOff()
        #expect(context.keptFree(of: SubjectKey(IPAddress(v4: 1))) == 0)
    }

    @Test("its share stays free, and what was let in beyond it is given back", arguments: form, [false, true])
    func keptFree(form: PolicyForm, tellsRemaining: Bool) throws {
        let context = context(limit: 10, form: form, tellsRemaining: tellsRemaining)
        let bench = try MachineBench(context: context)
        context.cutOff()
        try bench.connect()
        bench.ask(times: 5)
        try bench.pump()
        #expect(bench.admitted == 5)
        bench.ask(times: 5)
        try bench.pump()
        #expect(bench.admitted == 7 && bench.refused == 3 && bench.everyoneAnsweredOnce)
        #expect(try bench.slotsTaken(form) == 7)
        context.nodesChanged(running: 3)
        context.fullWindows.forget(bench.subject)
        bench.ask(times: 5)
        try bench.pump()
        #expect(bench.admitted == 10)
        #expect(try bench.slotsTaken(form) == 10)
    }

    @Test("a node that knows of nobody who is cut off keeps what it has let in, and all together stay within the limit")
    func disagreement() throws {
        let unaware = try MachineBench(context: context(limit: 9, boot: 1))
        let aware = try MachineBench(context: context(limit: 9, boot: 2), server: unaware.server)
        aware.context.cutOff()
        for bench in [unaware, aware] { try bench.connect() }
        aware.ask(times: 4)
        try aware.pump()
        unaware.ask(times: 9)
        try unaware.pump()
        #expect(aware.admitted == 4 && unaware.admitted == 5)
        for _ in 0..<3 {
            aware.context.fullWindows.forget(aware.subject)
            aware.ask(times: 3)
            try aware.pump()
        }
        #expect(aware.admitted == 4)
        #expect(try unaware.inWindow() == 9)
    }

    @Test(
        "whoever is refused is told when the oldest leaves that stands in the way, never earlier",
        arguments: [(9, 1), (9, 4), (2, 1), (100, 60)])
    func retryAfter(limit: Int, late: Int) throws {
        let context = context(limit: limit)
        let bench = try MachineBench(context: context)
        context.nodesChanged(running: 2, cutOff: 1, sharers: 2)
        let slots = limit - limit / 2
        try bench.connect()
        bench.ask()
        try bench.pump()
        let oldest = try #require(try bench.scores().first)
        bench.ask(times: slots - 1)
        try bench.pump()
        #expect(bench.admitted == slots)
        // Of some requests the server lets in as many as the limit has; all of them are beyond the slots.
        context.fullWindows.forget(bench.subject)
        let before = bench.nextToken
        bench.ask(times: late)
        try bench.pump()
        let told = try bench.redis.time()
        for token in (before + 1)...bench.nextToken {
            guard case .refuse(let wait)? = bench.asker.verdicts[token]?.first else {
                Issue.record("admitted")
                continue
            }
            let leaves = RedisTime(microseconds: oldest) + context.policy.window
            #expect(wait >= leaves - told)
            #expect(wait <= leaves - told + .milliseconds(500))
        }
    }

    @Test("what is to be given back when the connection breaks is given back over the next one")
    func lostWhileGivingBack() throws {
        let context = context(limit: 9)
        let bench = try MachineBench(context: context)
        context.cutOff()
        try bench.connect()
        bench.ask(times: 9)
        // More than the slots go as well: whoever has no entry is refused with the answer.
        let decision = try #require(bench.next())
        bench.answer(decision, try bench.execute(decision))
        bench.context.fullWindows.forget(bench.subject)
        bench.ask(times: 3)
        let second = try #require(bench.next())
        bench.answer(second, try bench.execute(second))
        #expect(try bench.inWindow() == 9)
        let giving = try #require(bench.next())
        bench.machine.failed(giving.token, .lost("x"), at: bench.now)
        bench.machine.disconnected(.lost("x"), at: bench.now)
        try bench.connect()
        try bench.pump()
        #expect(try bench.inWindow() == 6)
        #expect(bench.admitted == 6)
    }

    @Test("a late transaction confirms those who are in, and gives back the others")
    func late() throws {
        let bench = try MachineBench(context: context(limit: 9))
        bench.context.cutOff()
        try bench.connect()
        bench.ask(times: 4)
        try bench.pump()
        try bench.connect(error: .milliseconds(-200))
        bench.ask(times: 5)
        try bench.pump()
        #expect(bench.admitted == 6 && bench.refused == 3 && bench.everyoneAnsweredOnce)
        #expect(try bench.inWindow() == 6)
    }

    @Test("what the loss rule has let in counts, although its slot was to be kept free")
    func lossRule() throws {
        let bench = try MachineBench(context: context(limit: 9))
        bench.context.cutOff()
        try bench.connect()
        bench.ask(times: 6)
        try bench.pump()
        bench.context.fullWindows.forget(bench.subject)
        bench.ask(times: 3)
        let transmission = try #require(bench.next())
        let reply = try bench.execute(transmission)
        // Of one node alone the share is the limit: the loss rule admits them.
        bench.context.nodesChanged(running: 1)
        bench.expireAll()
        #expect(bench.admitted == 9)
        bench.answer(transmission, reply)
        try bench.pump()
        #expect(try bench.inWindow() == 9)
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("requests that cost more get all of their slots or none", arguments: form)
    func cost(form: PolicyForm) throws {
        let context = context(limit: 12, form: form, costMax: 5)
        let bench = try MachineBench(context: context)
        context.cutOff()
        try bench.connect()
        // Of 12 slots 8 may be filled.
        let asker = JointAsker()
        for cost: UInt16 in [5, 5, 3, 1] {
            let decision = bench.machine.ask(all: [bench.subject], costs: [cost], asker, token: 1, at: bench.now)
            if case .decided(let report) = decision { asker.refused.append(report.isRefused) }
            try bench.pump(asker)
        }
        #expect(asker.refused == [false, true, false, true])
        #expect(try bench.slotsTaken(form) == 8)
    }

    @Test("of several policies each keeps its share free, and what one refuses the other gets back")
    func joint() throws {
        let context = LimiterContext(
            policies: [
                Policy(name: "client", limit: 6, window: .seconds(10), burst: 3),
                Policy(name: "all", limit: 30, window: .seconds(10), burst: 2, key: .global),
            ],
            services: [], tellsRemaining: true, lossRule: .share, timeout: .milliseconds(50), boot: 0xb007, seed: 5)
        let bench = try MachineBench(context: context)
        context.cutOff()
        try bench.connect()
        let asker = JointAsker()
        let subjects = [SubjectKey(IPAddress(v4: 1), policy: 0), SubjectKey(globalOf: 1)]
        for _ in 0..<7 {
            let decision = bench.machine.ask(all: subjects, asker, token: 1, at: bench.now)
            if case .decided(let report) = decision { asker.refused.append(report.isRefused) }
        }
        try bench.pump(asker)
        #expect(asker.refused.filter { !$0 }.count == 4)
        #expect(try bench.redis("ZCARD", "rate_limit:client:6/10s:ip:0.0.0.1") == "4")
        #expect(try bench.redis("ZCARD", "rate_limit:all:30/10s:global") == "4")
    }
}

extension MachineBench {
    fileprivate func slotsTaken(_ form: PolicyForm) throws -> Int {
        guard form == .buckets else { return try inWindow() }
        return try scores().reduce(0) { $0 + Int($1) }
    }

    fileprivate func scores() throws -> [Int64] {
        let words = try redis("ZRANGE", key, "0", "-1", "WITHSCORES").split { " []'".contains($0) }
        return words.enumerated().filter { $0.offset % 2 == 1 }.compactMap { Int64($0.element) }
    }

    /// Sends, executes and answers until there is nothing to do; several policies have decided.
    fileprivate func pump(_ asker: any LimitRequester) throws {
        func deliver() {
            var answers: [LimitAnswer] = []
            machine.takeAnswers(into: &answers)
            for answer in answers {
                if let report = machine.takeReport(answer) { asker.limitsDecided(token: answer.token, report) }
            }
        }
        while let transmission = next() {
            machine.replied(transmission.token, try execute(transmission), at: now)
            deliver()
        }
        deliver()
    }
}
