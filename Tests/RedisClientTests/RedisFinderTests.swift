// Connections that look for their server, while it is away for a moment and nobody has taken its place.

import EventLoop
import Hiredis
import LinuxIO
import Primitives
import TestSupport
import Testing

@testable import RedisClient

private final class Follower: RedisRequester, RedisObserver {
    let loop: Loop
    private let finder: RedisFinder
    private var connection: RedisConnection!
    private(set) var ready = 0
    private(set) var failures: [RedisFailure] = []
    private(set) var replies = 0

    convenience init(_ group: SentinelGroup) throws {
        let sentinels = RedisSentinels(
            group.sentinelPorts.map { .tcp(host: "127.0.0.1", port: $0) }, service: "main",
            sentinel: RedisEndpoint(.tcp(host: "127.0.0.1", port: 0)),
            server: RedisEndpoint(.tcp(host: "127.0.0.1", port: 0)))
        try self.init(.sentinel(sentinels))
    }

    init(_ topology: RedisTopology) throws {
        loop = try Loop(waker: Waker())
        finder = RedisFinder(topology, key: "", name: "test", loop: loop, resolver: Resolver(), seed: 1)
        connection = finder.connection(name: "test", silenceMax: .milliseconds(200), seed: 1, observer: self)
        connection.start()
    }

    func ask() {
        connection.write { $0.add("PING") }
        connection.sendCommand(self, token: 0)
    }

    func run(until what: String, _ done: () -> Bool) throws {
        try eventually(what) {
            loop.turn(waitMax: .milliseconds(5))
            return done()
        }
    }

    func close() {
        connection.close()
        finder.close()
    }

    func redisReplied(_ reply: Reply, token: UInt64) { replies += 1 }
    func redisFailed(_ failure: RedisFailure, token: UInt64) {}
    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) { ready += 1 }
    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) { failures.append(failure) }
    func redisSubscribed(_ connection: RedisConnection) {}
    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}
}

@Suite("Finding the server", .timeLimit(.minutes(2)))
struct RedisFinderTests {
    enum Absence: CaseIterable { case killed, hangs, refuses }

    @Test(
        "a primary that was away for several attempts, and that no sentinel has replaced, is found again",
        arguments: Absence.allCases)
    func comesBack(absence: Absence) throws {
        let group = try SentinelGroup(downAfter: 60_000)
        defer { group.stop() }
        let primary = group.servers[0]
        let follower = try Follower(group)
        defer { follower.close() }
        try follower.run(until: "it is found") { follower.ready == 1 }
        switch absence {
        case .killed: primary.kill()
        case .hangs:
            primary.pause()
            follower.ask()
        case .refuses:
            let client = try primary.client()
            #expect(try client("CONFIG", "SET", "requirepass", "x") == "+OK")
            #expect(try client("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") != "0")
        }
        // The first is that it was lost, and each of the others an attempt.
        try follower.run(until: "attempts fail") { follower.failures.count >= 4 }
        switch absence {
        case .killed: try primary.start()
        case .hangs: primary.resume()
        case .refuses:
            let client = try primary.client()
            #expect(try client("AUTH", "x") == "+OK")
            #expect(try client("CONFIG", "SET", "requirepass", "") == "+OK")
        }
        try follower.run(until: "it is found again") { follower.ready == 2 }
        follower.ask()
        try follower.run(until: "it answers") { follower.replies == 1 }
    }

    @Test("the only server of a cluster is found again, after several attempts")
    func onlyServer() throws {
        let server = try RedisServer(["--cluster-enabled", "yes"])
        try server.client()("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        try eventually("it serves") { try server.client()("CLUSTER", "INFO").contains("cluster_state:ok") }
        let place = RedisEndpoint.Location.tcp(host: "127.0.0.1", port: server.port)
        let follower = try Follower(.cluster(RedisSeeds([place], server: RedisEndpoint(place))))
        defer { follower.close() }
        try follower.run(until: "it is found") { follower.ready == 1 }
        server.kill()
        try follower.run(until: "attempts fail") { follower.failures.count >= 4 }
        try server.start()
        try follower.run(until: "it is found again") { follower.ready == 2 }
    }

    @Test("who waits for a sentinel is told when none can be reached, and goes on trying")
    func noSentinel() throws {
        let group = try SentinelGroup(downAfter: 60_000)
        defer { group.stop() }
        for index in 0..<3 { group.killSentinel(index) }
        let follower = try Follower(group)
        defer { follower.close() }
        try follower.run(until: "it is told") { follower.failures.count >= 3 }
        #expect(follower.failures.allSatisfy { "\($0)".contains("no sentinel") }, "\(follower.failures)")
    }
}
