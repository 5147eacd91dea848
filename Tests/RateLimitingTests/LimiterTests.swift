// The limiter as a worker runs it: on a loop, over a real connection to a real Redis.

import EventLoop
import Identity
import LinuxIO
import Primitives
import RateLimiting
import RedisClient
import Synchronization
import TestSupport
import Testing

private final class Worker: LimitRequester {
    let loop: Loop
    var limiter: Limiter!
    var events: [LimiterEvent] = []
    var pending = 0
    var admitted = 0
    var refused = 0
    /// Asked again from within an answer, as a pipelined request is.
    var followUps = 0

    init(_ context: LimiterContext, _ endpoint: RedisEndpoint, index: Int = 0) throws {
        loop = try Loop(waker: Waker())
        limiter = Limiter(
            context, topology: .single(endpoint), worker: index, loop: loop, resolver: Resolver(), name: "test-\(index)"
        ) { [unowned self] event in if event != .reached { events.append(event) } }
    }

    func ask(_ subject: SubjectKey = SubjectKey(.v4Loopback), times: Int = 1) {
        for _ in 0..<times {
            switch limiter.check(subject, requester: self, token: 0) {
            case .pending: pending += 1
            case .decided(let verdict): count(verdict)
            }
        }
    }

    func limitDecided(token: UInt64, verdict: Verdict) {
        pending -= 1
        count(verdict)
        if followUps > 0 {
            followUps -= 1
            ask()
        }
    }

    private func count(_ verdict: Verdict) {
        switch verdict {
        case .admit: admitted += 1
        case .refuse: refused += 1
        }
    }

    @discardableResult
    func run(until done: () -> Bool) -> Bool {
        for _ in 0..<2_000 {
            if done() { return true }
            loop.turn(waitMax: .milliseconds(10))
        }
        Issue.record("waited in vain: \(pending) pending, \(events)")
        return false
    }

    func connect() { run { limiter.isAsking } }
}

private func context(
    _ limit: Int, _ rule: LossRule = .closed, window: TimeSpan = .seconds(1), timeout: TimeSpan = .seconds(2)
) -> LimiterContext {
    LimiterContext(
        Policy(name: "default", limit: limit, window: window, burst: 1), lossRule: rule, timeout: timeout,
        boot: SystemClock.random64(), seed: 3)
}

@Suite("The limiter on a loop", .timeLimit(.minutes(1)))
struct LimiterTests {
    @Test("two nodes with two workers each admit the limit together")
    func cluster() throws {
        let server = try RedisServer()
        let endpoint = RedisEndpoint(.unix(path: server.socketPath))
        let nodes = [context(10), context(10)]
        let workers = try [
            Worker(nodes[0], endpoint), Worker(nodes[0], endpoint, index: 1), Worker(nodes[1], endpoint),
            Worker(nodes[1], endpoint, index: 1),
        ]
        for worker in workers { worker.connect() }
        for worker in workers { worker.ask(times: 8) }
        for worker in workers { worker.run { worker.pending == 0 } }
        #expect(workers.reduce(0) { $0 + $1.admitted } == 10)
        #expect(workers.reduce(0) { $0 + $1.refused } == 22)
        #expect(workers.allSatisfy { $0.events.isEmpty })
    }

    @Test("who gets a verdict may ask again at once")
    func followUp() throws {
        let server = try RedisServer()
        let worker = try Worker(context(100), RedisEndpoint(.unix(path: server.socketPath)))
        worker.connect()
        worker.followUps = 20
        worker.ask()
        worker.run { worker.admitted == 21 }
        #expect(worker.pending == 0)
    }

    @Test("without Redis the loss rule answers at once", arguments: [LossRule.open, .closed, .share])
    func withoutRedis(rule: LossRule) throws {
        let context = context(10, rule)
        context.nodesChanged(running: 3)
        let worker = try Worker(context, RedisEndpoint(.unix(path: "/nonexistent/redis.sock")))
        worker.run { !worker.events.isEmpty }
        worker.ask(times: 20)
        #expect(worker.pending == 0)
        #expect(worker.admitted == (rule == .open ? 20 : rule == .closed ? 0 : 4))
        #expect(worker.events.count == 1)
    }

    @Test("nobody waits for a server that hangs, and it is used again when it goes on")
    func hangs() throws {
        let server = try RedisServer()
        let worker = try Worker(
            context(1_000, .share, timeout: .milliseconds(50)), RedisEndpoint(.unix(path: server.socketPath)))
        worker.connect()
        server.pause()
        for n in 0..<10 as Range<UInt32> {
            worker.ask(SubjectKey(IPAddress(v4: n)))
            worker.run { worker.pending == 0 }
        }
        #expect(worker.admitted == 10)
        #expect(!worker.limiter.isAsking)
        server.resume()
        worker.run { worker.events.last == .restored }
        worker.ask(SubjectKey(IPAddress(v4: 99)))
        #expect(worker.pending == 1)
        worker.run { worker.pending == 0 }
        #expect(worker.admitted == 11)
    }

    @Test(
        "a server that was killed is used again when it is back, and the window holds what was admitted before and since"
    )
    func restart() throws {
        let server = try RedisServer()
        let worker = try Worker(context(10, .open, window: .seconds(60)), RedisEndpoint(.unix(path: server.socketPath)))
        worker.connect()
        worker.ask(times: 2)
        worker.run { worker.pending == 0 }
        server.kill()
        worker.run { !worker.limiter.isAsking }
        worker.ask(times: 6)
        #expect(worker.pending == 0 && worker.admitted == 8)
        try server.start()
        worker.run { worker.events.last == .restored }
        let redis = try server.client()
        worker.run { (try? redis("ZCARD", "rate_limit:default:10/1m:ip:127.0.0.1")) == "8" }
        worker.ask(times: 20)
        worker.run { worker.pending == 0 }
        #expect(worker.admitted == 10)
    }

    @Test("a server that is flushed gets the window back, and a key that is deleted does not")
    func flush() throws {
        let server = try RedisServer()
        let context = context(10, .closed, window: .seconds(60))
        let worker = try Worker(context, RedisEndpoint(.unix(path: server.socketPath)))
        worker.connect()
        worker.ask(times: 7)
        worker.run { worker.pending == 0 }
        let redis = try server.client()
        let key = "rate_limit:default:10/1m:ip:127.0.0.1"
        worker.run { (try? redis("EXISTS", "sluice:epoch")) == "1" }
        // The marker is known once it has been answered for: a further probe shows it.
        let seen = try redis("CONFIG", "RESETSTAT")
        #expect(seen == "+OK")
        worker.run { (try? redis("INFO", "commandstats"))?.contains("cmdstat_setnx:calls=2") == true }
        try redis("FLUSHALL")
        worker.run { (try? redis("ZCARD", key)) == "7" }
        #expect(worker.events == [.dataLost])
        #expect(context.failures.dataLosses == 1)
        worker.ask(times: 20)
        worker.run { worker.pending == 0 }
        #expect(worker.admitted == 10)
        try redis("DEL", key)
        try redis("CONFIG", "RESETSTAT")
        worker.run { (try? redis("INFO", "commandstats"))?.contains("cmdstat_setnx:calls=3") == true }
        #expect(try redis("EXISTS", key) == "0")
    }

    @Test("under a flush a client gets its limit once more at most, and then nothing until its window has passed")
    func flushUnderLoad() throws {
        let server = try RedisServer()
        let limit = 200
        let workers = try (0..<2).map { index in
            try Worker(
                context(limit, .closed, window: .seconds(60)), RedisEndpoint(.unix(path: server.socketPath)),
                index: index)
        }
        for worker in workers { worker.connect() }
        let redis = try server.client()
        func hammer(until done: () throws -> Bool) rethrows {
            for _ in 0..<4_000 {
                if try done() { return }
                for worker in workers {
                    worker.ask(times: 5)
                    worker.loop.turn(waitMax: .milliseconds(1))
                }
            }
            Issue.record("waited in vain")
        }
        var admitted: Int { workers.reduce(0) { $0 + $1.admitted } }
        hammer { admitted == limit }
        try redis("CONFIG", "RESETSTAT")
        try hammer { try redis("INFO", "commandstats").contains("cmdstat_setnx:calls=4") }
        try redis("FLUSHALL")
        hammer { workers.allSatisfy { $0.events.contains(.dataLost) } }
        let begin = SystemClock.monotonic()
        hammer { SystemClock.monotonic() - begin > .milliseconds(300) }
        for worker in workers { worker.run { worker.pending == 0 } }
        #expect(admitted <= 2 * limit)
        let before = admitted
        let rest = SystemClock.monotonic()
        hammer { SystemClock.monotonic() - rest > .milliseconds(300) }
        #expect(admitted == before)
    }

    @Test(
        "a server that takes no writes is told once, and used again when it does",
        arguments: [
            (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], RedisCause.outOfMemory),
            (["ACL", "SETUSER", "default", "-zadd"], ["ACL", "SETUSER", "default", "+zadd"], .permission),
            (["ACL", "SETUSER", "default", "-zremrangebyrank"], ["ACL", "SETUSER", "default", "+@all"], .permission),
            (
                ["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"],
                .unavailable
            ),
            (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"], .readOnly),
        ] as [([String], [String], RedisCause)])
    func refused(spoil: [String], mend: [String], cause: RedisCause) throws {
        let server = try RedisServer()
        let context = context(1_000, .share, timeout: .seconds(1))
        let worker = try Worker(context, RedisEndpoint(.unix(path: server.socketPath)))
        worker.connect()
        let redis = try server.client()
        #expect(try redis.ask(spoil) == "+OK")
        let begin = SystemClock.monotonic()
        while SystemClock.monotonic() - begin < .milliseconds(700) {
            worker.ask()
            worker.run { worker.pending == 0 }
            worker.loop.turn(waitMax: .milliseconds(10))
        }
        // However often it was probed meanwhile, it never seemed to be back.
        #expect(worker.events.count == 1, "\(worker.events)")
        guard case .lost(let failure) = worker.events.first else {
            Issue.record("not told")
            return
        }
        #expect(failure.cause == cause)
        #expect(context.failures.count(of: cause) > 0)
        #expect(worker.refused == 0)
        #expect(try redis.ask(mend) == "+OK")
        worker.run { worker.events.last == .restored }
    }

    @Test("closing answers everyone")
    func close() throws {
        let server = try RedisServer()
        let worker = try Worker(context(10), RedisEndpoint(.unix(path: server.socketPath)))
        worker.connect()
        worker.ask(times: 5)
        worker.limiter.close()
        #expect(worker.pending == 0 && worker.refused == 5)
    }

    @Test("a hammering client costs Redis at most two hundred transactions a second")
    func cheapRefusals() throws {
        let server = try RedisServer()
        let worker = try Worker(context(10_000), RedisEndpoint(.unix(path: server.socketPath)))
        worker.connect()
        worker.ask(times: 10_000)
        worker.run { worker.pending == 0 }
        #expect(worker.admitted == 10_000)
        let redis = try server.client()
        try redis("CONFIG", "RESETSTAT")
        let begin = SystemClock.monotonic()
        while SystemClock.monotonic() - begin < .milliseconds(300) {
            worker.ask(times: 10)
            worker.loop.turn(waitMax: .zero)
        }
        let spent = SystemClock.monotonic() - begin
        worker.run { worker.pending == 0 }
        let statistics = try redis("INFO", "commandstats")
        let calls = statistics.split(separator: "cmdstat_exec:calls=").dropFirst().first?.prefix { $0.isNumber } ?? "0"
        // One in 5 ms, and a probe in 100 ms.
        #expect((Int(calls) ?? 0) <= Int(spent.milliseconds / 5 + spent.milliseconds / 100) + 3)
        #expect(worker.refused > 1_000)
    }
}
