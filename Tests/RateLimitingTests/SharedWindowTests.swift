// The windows of one write are decided in one transaction; seen through a limiter on a loop and a real Redis.

import EventLoop
import Identity
import LinuxIO
import Primitives
import RateLimiting
import RedisClient
import TestSupport
import Testing

private final class Bench: LimitRequester {
    let loop: Loop
    let context: LimiterContext
    var limiter: Limiter!
    var reports: [UInt64: PolicyReport] = [:]
    var events: [LimiterEvent] = []
    private var token: UInt64 = 0

    init(_ endpoint: RedisEndpoint, _ policies: [Policy]) throws {
        loop = try Loop(waker: Waker())
        context = LimiterContext(
            policies: policies, services: [], lossRule: .closed, timeout: .seconds(2), boot: SystemClock.random64(),
            seed: 3)
        limiter = Limiter(
            context, topology: .single(endpoint), worker: 0, loop: loop, resolver: Resolver(), name: "test"
        ) { [unowned self] event in if event != .reached { events.append(event) } }
        run { limiter.isAsking }
    }

    /// Asks all policies for a client; returns the token.
    @discardableResult
    func ask(_ client: UInt32, costs: [UInt16] = []) -> UInt64 {
        token += 1
        let subjects = context.policies.indices.map { policy in
            context.policies[policy].key == .global
                ? SubjectKey(globalOf: UInt8(policy)) : SubjectKey(IPAddress(v4: client), policy: UInt8(policy))
        }
        switch limiter.check(all: subjects, costs: costs, requester: self, token: token) {
        case .decided(let report): reports[token] = report
        case .pending: break
        }
        return token
    }

    func limitDecided(token: UInt64, verdict: Verdict) { Issue.record("asked of several, answered by one") }
    func limitsDecided(token: UInt64, _ report: PolicyReport) { reports[token] = report }

    func run(until done: () -> Bool) {
        for _ in 0..<2_000 {
            if done() { return }
            loop.turn(waitMax: .milliseconds(10))
        }
        Issue.record("waited in vain: \(reports.count) answers, \(events)")
    }

    /// Entries in the windows of a client.
    func entries(of client: UInt32, _ redis: RedisTestClient) -> [Int?] {
        (0..<4 as Range<UInt8>).map { policy in
            let subject = SubjectKey(IPAddress(v4: client), policy: policy)
            return (try? redis("ZCARD", context.keys[Int(policy)].text(subject))).flatMap { Int($0) }
        }
    }

    func admitted(_ tokens: [UInt64]) -> Int {
        run { tokens.allSatisfy { reports[$0] != nil } }
        return tokens.count { reports[$0]?.isRefused == false }
    }
}

private func policies(_ forms: [PolicyForm] = Array(repeating: .window, count: 5)) -> [Policy] {
    let names = ["service", "path", "user", "ip", "all"]
    return forms.enumerated().map { index, form in
        Policy(
            name: names[index], limit: 20 - 3 * index, window: .seconds(30), burst: 20,
            key: index == 4 ? .global : .ip, form: form, costMax: index == 2 ? 3 : 1)
    }
}

/// Calls of commands since the statistics were reset, without those of probes, each of which has one `SETNX`.
private func calls(_ redis: RedisTestClient) throws -> [String: Int] {
    let statistics = try redis("INFO", "commandstats")
    func calls(_ command: String) -> Int {
        let text = statistics.split(separator: "cmdstat_\(command):calls=").dropFirst().first
        return text.flatMap { Int($0.prefix { $0.isNumber }) } ?? 0
    }
    let probes = calls("setnx")
    var all = Dictionary(
        uniqueKeysWithValues: ["multi", "exec", "time", "zremrangebyscore"].map { ($0, calls($0) - probes) })
    // A window's part has two `ZADD`, a probe one, and a confirmation one.
    all["confirmations"] = calls("zadd") - probes - 2 * all["zremrangebyscore"]!
    return all
}

@Suite("The windows of one write", .timeLimit(.minutes(1)))
struct SharedWindowTests {
    @Test("five policies over one request are decided by one MULTI")
    func oneTransaction() throws {
        let server = try RedisServer()
        let bench = try Bench(RedisEndpoint(.unix(path: server.socketPath)), policies())
        let redis = try server.client()
        try redis("CONFIG", "RESETSTAT")
        for count in 1...4 {
            #expect(bench.admitted([bench.ask(7)]) == 1)
            let calls = try calls(redis)
            #expect(calls["time"] == 2 * count && calls["zremrangebyscore"] == 5 * count, "\(calls)")
            // Where the machine is busy, what was executed late is confirmed by a transaction of its own.
            #expect(calls["multi"] == calls["exec"])
            #expect(calls["multi"]! - calls["confirmations"]! == count, "\(calls)")
        }
    }

    @Test("requests of several clients in one write share it too, and each policy admits its limit")
    func several() throws {
        let server = try RedisServer()
        let bench = try Bench(RedisEndpoint(.unix(path: server.socketPath)), policies())
        let redis = try server.client()
        try redis("CONFIG", "RESETSTAT")
        let tokens = (1...10).map { bench.ask($0) }
        // The last policy is of all clients, and has a limit of eight.
        #expect(bench.admitted(tokens) == 8)
        // Four windows a client and one of all, and what the two who were refused took is given back.
        let calls = try calls(redis)
        #expect(calls["time"] == 2 && calls["zremrangebyscore"] == 41, "\(calls)")
        #expect(calls["multi"]! - calls["confirmations"]! == 1, "\(calls)")
        bench.run { (1...10).count { bench.entries(of: $0, redis) == [0, 0, 0, 0] } == 2 }
        #expect((1...10).count { bench.entries(of: $0, redis) == [1, 1, 1, 1] } == 8)
    }

    @Test(
        "exact windows, buckets and requests that cost more share one, and each is what it is alone",
        arguments: [[PolicyForm.buckets, .window, .window, .buckets, .window], [.window, .buckets, .window]])
    func mixed(forms: [PolicyForm]) throws {
        let server = try RedisServer()
        let bench = try Bench(RedisEndpoint(.unix(path: server.socketPath)), policies(forms))
        let costs = (0..<forms.count).map { UInt16($0 == 2 ? 3 : 1) }
        let tokens = (1...12).map { _ in bench.ask(7, costs: costs) }
        // The third has 14 slots, and each request takes three of them; the last of five has eight in all.
        #expect(bench.admitted(tokens) == 4)
        #expect(bench.admitted([bench.ask(8, costs: costs)]) == 1)
        #expect(bench.events.isEmpty)
    }

    @Test("a window whose key holds something else fails alone: the loss rule decides it and no other")
    func wrongType() throws {
        let server = try RedisServer()
        let bench = try Bench(RedisEndpoint(.unix(path: server.socketPath)), policies())
        let redis = try server.client()
        let key = bench.context.keys[0].text(SubjectKey(IPAddress(v4: 7), policy: 0))
        try redis("SET", key, "x")
        let (bad, good) = (bench.ask(7), bench.ask(8))
        #expect(bench.admitted([bad]) == 0)
        #expect(bench.admitted([good]) == 1)
        #expect(bench.limiter.isAsking)
    }
}
