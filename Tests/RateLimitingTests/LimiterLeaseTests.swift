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
}
