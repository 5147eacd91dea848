// Connections that look for their server, while it is away for a moment and nobody has taken its place.

import EventLoop
import Hiredis
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

@testable import RedisClient

private final class Follower: RedisRequester, RedisObserver {
    let loop: Loop
    private let finder: RedisFinder
    private(set) var connection: RedisConnection!
    private(set) var ready = 0
    private(set) var unheard: RedisFailure?
    private(set) var failures: [RedisFailure] = []
    private(set) var replies = 0

    typealias Login = (user: String?, password: String)

    convenience init(_ group: SentinelGroup, sentinel: Login? = nil, server: Login? = nil) throws {
        try self.init(sentinels: group.sentinelPorts, sentinel: sentinel, server: server)
    }

    convenience init(sentinels: [UInt16], sentinel: Login? = nil, server: Login? = nil) throws {
        func endpoint(_ login: Login?) -> RedisEndpoint {
            RedisEndpoint(.tcp(host: "127.0.0.1", port: 0), username: login?.user, password: login?.password)
        }
        let sentinels = RedisSentinels(
            sentinels.map { .tcp(host: "127.0.0.1", port: $0) }, service: "main", sentinel: endpoint(sentinel),
            server: endpoint(server))
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
    func redisMovesUnheard(_ connection: RedisConnection, _ failure: RedisFailure?) { unheard = failure }
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
        for failure in follower.failures {
            #expect("\(failure)".hasPrefix("sentinel 127.0.0.1:"), "\(failure)")
            #expect(failure.cause == .unreachable)
            #expect(failure.remedy.hasPrefix("see whether the sentinels run"))
        }
    }

    @Test(
        "what the servers refuse is told as theirs, with a sentinel that is down or without", arguments: [true, false])
    func wrongPassword(oneIsDown: Bool) throws {
        let group = try SentinelGroup(downAfter: 60_000)
        defer { group.stop() }
        #expect(try group.servers[0].client()("CONFIG", "SET", "requirepass", "right") == "+OK")
        if oneIsDown { group.killSentinel(1) }
        let follower = try Follower(group, server: (nil, "wrong"))
        defer { follower.close() }
        // A machine that is busy for a second is another matter.
        func told() -> [RedisFailure] { follower.failures.filter { $0.cause != .silent } }
        try follower.run(until: "attempts fail") { told().count >= 5 }
        for failure in told() {
            #expect("\(failure)".hasPrefix("refused: WRONGPASS"), "\(failure)")
            #expect(failure.cause == .login)
            #expect(failure.remedy.hasPrefix("set the user and the password"))
        }
    }

    @Test(
        "what the sentinels refuse is told as theirs",
        arguments: [
            ("u", "WRONGPASS", RedisCause.login, "it is the sentinel that refuses: set sentinelPassword"),
            (nil, "ERR AUTH", .login, "the sentinels have no password: take sentinelPassword out"),
            (
                "deaf", "NOPERM", .permission,
                "ACL SETUSER NAME +sentinel|get-master-addr-by-name grants it, on each sentinel"
            ),
        ] as [(String?, String, RedisCause, String)])
    func sentinelsRefuse(user: String?, words: String, cause: RedisCause, remedy: String) throws {
        let group = try SentinelGroup(downAfter: 60_000)
        defer { group.stop() }
        try group.eachSentinel { (client: RedisTestClient) throws in
            #expect(try client("ACL", "SETUSER", "deaf", "on", ">x", "-@all", "+@connection") == "+OK")
        }
        let follower = try Follower(group, sentinel: (user, "x"))
        defer { follower.close() }
        func told() -> [RedisFailure] { follower.failures.filter { $0.cause != .silent } }
        try follower.run(until: "attempts fail") { told().count >= 3 }
        for failure in told() {
            #expect("\(failure)".hasPrefix("sentinel 127.0.0.1:") && "\(failure)".contains("refused: \(words)"))
            #expect(failure.cause == cause)
            #expect(failure.remedy.hasPrefix(remedy), "\(failure.remedy)")
        }
    }

    @Test("who may not listen at the sentinels is told so, and told when it may")
    func deaf() throws {
        let group = try SentinelGroup(downAfter: 60_000)
        defer { group.stop() }
        let rights = ["resetchannels", "-@all", "+@connection", "+subscribe", "+sentinel|get-master-addr-by-name"]
        try group.eachSentinel { (client: RedisTestClient) throws in
            #expect(try client.ask(["ACL", "SETUSER", "u", "on", ">pw"] + rights) == "+OK")
        }
        let follower = try Follower(group, sentinel: ("u", "pw"))
        defer { follower.close() }
        try follower.run(until: "it is found, and told") { follower.ready == 1 && follower.unheard != nil }
        #expect(follower.unheard?.cause == .permission)
        #expect(
            follower.unheard?.remedy.hasPrefix("ACL SETUSER NAME '&+switch-master' '&+promoted-slave' grants it")
                == true)
        try group.eachSentinel { (client: RedisTestClient) throws in
            #expect(try client("ACL", "SETUSER", "u", "&+switch-master", "&+promoted-slave") == "+OK")
        }
        try follower.run(until: "it hears") { follower.unheard == nil }
        // Its connection to the primary is not touched by that.
        #expect(follower.ready == 1)
    }

    @Test("a replica is gone to as soon as it is promoted, although the sentinel that is asked names the other still")
    func promoted() throws {
        let (old, new) = (try RedisServer(), try RedisServer())
        let oldPort = old.port
        let news = Mutex<String?>(nil)
        let sentinel = try RecordingBackend(serving: { _, wire, _ in
            while let head = try wire.readLine(), let count = Int(head.dropFirst()) {
                var words: [String] = []
                for _ in 0..<count {
                    guard let length = try wire.readLine().flatMap({ Int($0.dropFirst()) }) else { return }
                    words.append(String(decoding: try wire.read(length), as: UTF8.self))
                    _ = try wire.readLine()
                }
                func bulk(_ text: String) -> String { "$\(text.utf8.count)\r\n\(text)\r\n" }
                switch words[0] {
                case "SENTINEL": try wire.send("*2\r\n" + bulk("127.0.0.1") + bulk("\(oldPort)"))
                case "SUBSCRIBE":
                    for name in words.dropFirst() {
                        try wire.send("*3\r\n" + bulk("subscribe") + bulk(name) + ":1\r\n")
                    }
                case "PING":
                    if let text = news.withLock({ $0 }) {
                        try wire.send("*3\r\n" + bulk("message") + bulk("+promoted-slave") + bulk(text))
                    }
                    try wire.send("*2\r\n" + bulk("pong") + bulk(""))
                default: try wire.send("+OK\r\n")
                }
            }
        })
        defer { sentinel.stop() }
        let follower = try Follower(sentinels: [sentinel.address.port])
        defer { follower.close() }
        try follower.run(until: "it is found") { follower.ready == 1 }
        #expect(follower.connection.endpoint.location == .tcp(host: "127.0.0.1", port: old.port))
        news.withLock {
            $0 = "slave 127.0.0.1:\(new.port) 127.0.0.1 \(new.port) @ main 127.0.0.1 \(old.port)"
        }
        try follower.run(until: "it goes there") { follower.ready == 2 }
        #expect(
            follower.failures.last.map { "\($0)" } == "connection lost: the primary is at 127.0.0.1:\(new.port) now")
        #expect(follower.failures.last?.remedy == "none is needed: the connection goes there")
        #expect(follower.connection.endpoint.location == .tcp(host: "127.0.0.1", port: new.port))
    }
}
