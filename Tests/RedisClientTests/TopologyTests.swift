import Hiredis
import Primitives
import TestSupport
import Testing

@testable import RedisClient

/// A reply from its bytes.
private func reply(_ wire: String) throws -> Reply {
    var reader = ReplyReader()
    let bytes = Array(wire.utf8)
    reader.feed(bytes.span)
    try #require(try reader.next())
    return reader.reply
}

@Suite("Slots")
struct KeySlotTests {
    @Test(
        "keys belong where the specification and Redis put them",
        arguments: [
            ("123456789", 12_739), ("", 0), ("foo", 12_182), ("bar", 5_061), ("{foo}", 12_182),
            ("x{foo}y{bar}", 12_182),
            ("foo{}{bar}", 8_363), ("foo{{bar}}zap", 4_015), ("foo{bar}{zap}", 5_061), ("foo{bar", 15_278),
            ("rate_limit:{default:100/1s:ip:203.0.113.7}", KeySlot.of("default:100/1s:ip:203.0.113.7")),
        ])
    func slots(key: String, slot: Int) { #expect(KeySlot.of(key) == slot) }

    @Test("every slot has a tag", arguments: [0, 1, 5_460, 16_383])
    func tags(slot: Int) { #expect(KeySlot.of("rate_limit:{\(KeySlot.tag(of: slot))}:probe") == slot) }
}

@Suite("The map of a cluster")
struct ClusterMapTests {
    private static let asked = RedisEndpoint.Location.tcp(host: "h", port: 7_000)
    private static func node(_ host: String, _ port: Int) -> String {
        "*4\r\n$\(host.utf8.count)\r\n\(host)\r\n:\(port)\r\n$2\r\nid\r\n*0\r\n"
    }
    private static func range(_ first: Int, _ last: Int, _ nodes: String...) -> String {
        "*\(2 + nodes.count)\r\n:\(first)\r\n:\(last)\r\n\(nodes.joined())"
    }

    @Test("slots, primaries and replicas are told apart, and what a redirection says is added")
    func map() throws {
        let wire =
            "*3\r\n" + Self.range(0, 99, Self.node("a", 1), Self.node("r", 9))
            + Self.range(200, 16_383, Self.node("", 2))
            + Self.range(100, 100, Self.node("a", 1))
        var map = try #require(ClusterMap(try reply(wire), askedAt: Self.asked))
        #expect(map.primaries == [.tcp(host: "a", port: 1), .tcp(host: "h", port: 2)])
        #expect(map.owner(of: 0) == .tcp(host: "a", port: 1))
        #expect(map.owner(of: 100) == .tcp(host: "a", port: 1))
        #expect(map.owner(of: 101) == nil)
        #expect(map.owner(of: 16_383) == .tcp(host: "h", port: 2))
        #expect(map.firstSlots == [0, 200])
        map.moved(101, to: .tcp(host: "c", port: 3))
        #expect(map.index(of: 101) == 2)
        #expect(map.firstSlots == [0, 200, 101])
        #expect(ClusterMap(try reply("*0\r\n"), askedAt: Self.asked) == ClusterMap())
    }

    @Test(
        "an answer of another shape is none",
        arguments: [
            "+OK\r\n", "*1\r\n*2\r\n:0\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:1\r\n:2\r\n",
            "*1\r\n" + range(5, 4, node("a", 1)), "*1\r\n" + range(0, 16_384, node("a", 1)),
            "*1\r\n" + range(-1, 4, node("a", 1)), "*1\r\n" + range(0, 4, node("a", 65_536)),
        ])
    func shapes(wire: String) throws { #expect(ClusterMap(try reply(wire), askedAt: Self.asked) == nil) }

    @Test("redirections are read strictly")
    func redirections() {
        func read(_ text: String) -> Redirection? { Redirection(text, from: Self.asked) }
        #expect(read("MOVED 3999 127.0.0.1:6381") == .moved(slot: 3_999, to: .tcp(host: "127.0.0.1", port: 6_381)))
        #expect(read("ASK 0 ::1:6381") == .ask(slot: 0, at: .tcp(host: "::1", port: 6_381)))
        #expect(read("MOVED 1 :6381") == .moved(slot: 1, to: .tcp(host: "h", port: 6_381)))
        #expect(read("TRYAGAIN Multiple keys") == .tryAgain)
        for text in ["MOVED 16384 a:1", "MOVED x a:1", "MOVED 1 a:0", "MOVED 1 a", "MOVED 1", "READONLY x", ""] {
            #expect(read(text) == nil, "\(text)")
        }
    }
}

@Suite("What sentinels say")
struct SentinelViewTests {
    @Test("a place is believed, nothing is no service, and the rest is malformed")
    func answers() throws {
        var view = SentinelView(service: "main")
        #expect(view.answered(try reply("*-1\r\n")) == .unknown)
        #expect(view.answered(try reply("$-1\r\n")) == .unknown)
        #expect(view.answered(try reply("*2\r\n$1\r\na\r\n$4\r\n6379\r\n")) == .primary(.tcp(host: "a", port: 6_379)))
        #expect(view.primary == .tcp(host: "a", port: 6_379))
        for wire in ["+OK\r\n", "*2\r\n$1\r\na\r\n$1\r\n0\r\n", "*2\r\n$0\r\n\r\n$1\r\n1\r\n", "*1\r\n$1\r\na\r\n"] {
            #expect(view.answered(try reply(wire)) == .malformed, "\(wire)")
        }
        #expect(view.primary == .tcp(host: "a", port: 6_379))
    }

    @Test("a switch counts for its own service only")
    func switches() {
        var view = SentinelView(service: "main")
        func heard(_ text: String) -> RedisEndpoint.Location? { view.heard("+switch-master", text) }
        #expect(heard("main 10.0.0.1 6379 10.0.0.2 6380") == .tcp(host: "10.0.0.2", port: 6_380))
        #expect(heard("other 10.0.0.1 6379 10.0.0.3 6380") == nil)
        #expect(heard("main 10.0.0.1 6379 10.0.0.3") == nil)
        #expect(heard("main 10.0.0.1 6379 10.0.0.3 x") == nil)
        #expect(view.primary == .tcp(host: "10.0.0.2", port: 6_380))
    }

    @Test("a replica that was promoted is the primary, of its own service only")
    func promotions() {
        var view = SentinelView(service: "main")
        func heard(_ text: String) -> RedisEndpoint.Location? { view.heard("+promoted-slave", text) }
        let replica = "slave 10.0.0.2:6380 10.0.0.2 6380"
        #expect(heard("\(replica) @ main 10.0.0.1 6379") == .tcp(host: "10.0.0.2", port: 6_380))
        for text in ["\(replica) @ other 10.0.0.1 6379", replica, "main 10.0.0.1 6379 10.0.0.3 6380", ""] {
            #expect(heard(text) == nil, "\(text)")
        }
        #expect(view.primary == .tcp(host: "10.0.0.2", port: 6_380))
        #expect(view.heard("+slave", "\(replica) @ main 10.0.0.1 6379") == nil)
    }
}
