// Leases as a worker's limiter keeps them: on a loop, over a real connection to a real Redis.

import EventLoop
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

private let subject = SubjectKey(IPAddress(v4: 0x0a00_0001), policy: 0)

/// Limiters of one worker, one after the other, and their server.
private final class LeaseWorker: LimitRequester {
    let server: RedisServer
    let redis: RedisTestClient
    let loop: Loop
    var reports: [UInt64: PolicyReport] = [:]
    private var token: UInt64 = 0

    init() throws {
        server = try RedisServer()
        redis = try server.client()
        loop = try Loop(waker: Waker())
    }

    func context(
        _ limit: Int, lease: TimeSpan = .milliseconds(300), key: PolicyKey = .ip, before: LimiterContext? = nil
    ) -> LimiterContext {
        LimiterContext(
            policies: [
                Policy(name: "runs", limit: limit, window: lease, burst: limit, key: key, form: .leases)
            ],
            services: ["a"], lossRule: .closed, timeout: .seconds(2), boot: SystemClock.random64(), seed: 3,
            before: before, at: SystemClock.monotonic())
    }

    func limiter(_ context: LimiterContext) -> Limiter {
        let limiter = Limiter(
            context, topology: .single(RedisEndpoint(.unix(path: server.socketPath))), worker: 0, loop: loop,
            resolver: Resolver(), name: "test"
        ) { _ in }
        run { limiter.isAsking }
        return limiter
    }

    func limitDecided(token: UInt64, verdict: Verdict) { Issue.record("asked of several, answered by one") }
    func limitsDecided(token: UInt64, _ report: PolicyReport) { reports[token] = report }

    func ask(_ limiter: Limiter, _ subject: SubjectKey = subject) -> UInt64 {
        token += 1
        if case .decided(let report) = limiter.check(all: [subject], requester: self, token: token) {
            reports[token] = report
        }
        return token
    }

    /// The lease of a request that is let in.
    func lease(_ limiter: Limiter) throws -> Int32 {
        let token = ask(limiter)
        run { reports[token] != nil }
        let report = try #require(reports[token])
        #expect(!report.isRefused && report.lease >= 0)
        return report.lease
    }

    func run(until done: () throws -> Bool) rethrows {
        for _ in 0..<1_000 {
            if try done() { return }
            loop.turn(waitMax: .milliseconds(10))
        }
        Issue.record("waited in vain")
    }

    private func key(_ limit: Int) -> String { "rate_limit:runs:\(limit)/concurrent:ip:10.0.0.1" }
    func entries(_ limit: Int) throws -> Int { Int(try redis("ZCARD", key(limit))) ?? -1 }
    func scores(_ limit: Int) throws -> String { try redis("ZRANGE", key(limit), "0", "-1", "WITHSCORES") }
}

@Suite("Leases of a limiter on a loop", .timeLimit(.minutes(1)))
struct LimiterLeaseTests {
    @Test("whatever a limiter has given it renews, also when nobody asks it any more")
    func renews() throws {
        let worker = try LeaseWorker()
        let limiter = worker.limiter(worker.context(2))
        let lease = try worker.lease(limiter)
        let given = try worker.scores(2)
        try worker.run { try worker.scores(2) != given }
        #expect(try worker.entries(2) == 1)
        limiter.release(lease)
        try worker.run { try worker.entries(2) == 0 }
        #expect(!limiter.holdsLeases)
        limiter.close()
    }

    @Test("under another limit what runs counts on, however long; and frees its slot under each when it ends")
    func changes() throws {
        let worker = try LeaseWorker()
        let first = worker.context(1)
        var limiters = [worker.limiter(first)]
        let early = try worker.lease(limiters[0])
        limiters.append(worker.limiter(worker.context(2, before: first)))
        // On its way when the limit changes; it will be refused by the old one, and one of another client is not.
        let other = SubjectKey(IPAddress(v4: 0x0a00_0002), policy: 0)
        let late = worker.ask(limiters[0], other)
        limiters[0].handOver(to: limiters[1])
        worker.run { worker.reports[late] != nil }
        let lateLease = try #require(worker.reports[late]).lease
        #expect(lateLease >= 0)
        try worker.run { try worker.entries(2) == 1 }
        #expect(limiters[1].leases.count == 2)
        // Renewed by both.
        let scores = try (worker.scores(1), worker.scores(2))
        try worker.run { try worker.scores(1) != scores.0 && worker.scores(2) != scores.1 }
        let second = try worker.lease(limiters[1])
        let refused = worker.ask(limiters[1])
        worker.run { worker.reports[refused] != nil }
        #expect(worker.reports[refused]?.isRefused == true)
        // And once more.
        limiters.append(worker.limiter(worker.context(3, before: first)))
        limiters[1].handOver(to: limiters[2])
        try worker.run { try worker.entries(3) == 2 }
        limiters[0].release(early)
        try worker.run { try worker.entries(1) == 0 && worker.entries(2) == 1 && worker.entries(3) == 1 }
        limiters[1].release(second)
        limiters[0].release(lateLease)
        try worker.run { try worker.entries(2) == 0 && worker.entries(3) == 0 }
        for limiter in limiters {
            #expect(!limiter.holdsLeases)
            limiter.close()
        }
    }

    @Test("the same limit counts nobody twice")
    func stays() throws {
        let worker = try LeaseWorker()
        let before = worker.context(2)
        let limiters = [worker.limiter(before), worker.limiter(worker.context(2, before: before))]
        let lease = try worker.lease(limiters[0])
        limiters[0].handOver(to: limiters[1])
        #expect(limiters[1].leases.count == 0)
        limiters[0].release(lease)
        for limiter in limiters { limiter.close() }
    }
}
