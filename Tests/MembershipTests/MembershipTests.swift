import Membership
import Primitives
import Testing

private let heartbeat = TimeSpan.milliseconds(500)
private let serverStart = RedisTime(microseconds: 1_700_000_000_000_000)

private func node(_ text: String) -> NodeID {
    do throws(NodeIDError) { return try NodeID(text) } catch { fatalError("\(error)") }
}

/// A model of the server: the sorted set and the hash, and a clock that tests move.
private struct ModelServer {
    var time = serverStart
    var scores: [NodeID: RedisTime] = [:]
    var info: [NodeID: NodeInfo] = [:]

    /// One heartbeat transaction of a node, with the score that the node computed.
    mutating func beat(_ view: MembershipView, score: RedisTime) -> HeartbeatReply {
        let before = info
        scores[view.id] = score
        info[view.id] = view.info
        return HeartbeatReply(
            serverTime: time, lastSeen: scores.map { ($0.key, $0.value) }, info: info,
            previousBoot: before[view.id]?.boot)
    }
}

/// A node with a monotonic clock of its own origin.
private struct ModelNode {
    var view: MembershipView
    var now: MonotonicTime
    var events: [MembershipEvent] = []
    /// What the server's last answer said of its time, and when.
    var known: (time: RedisTime, at: MonotonicTime)?

    init(_ name: String, boot: UInt64, origin: Int64 = 0) {
        view = MembershipView(
            id: node(name), info: NodeInfo(address: "\(name):8080", boot: BootID(boot), heartbeat: heartbeat))
        now = MonotonicTime(nanoseconds: origin)
        // Each on a host of its own.
        view.announce(reach: SocketAddress(ip: IPAddress(v4: 0x0a00_0000 | UInt32(boot)), port: 8080))
    }

    /// Asks for the server's time, as a new connection does.
    mutating func join(_ server: ModelServer) { known = (server.time, now) }

    mutating func answer(_ question: SilenceQuestion, _ answer: SilenceAnswer) {
        view.answered(question, answer, into: &events)
    }

    mutating func beat(_ server: inout ModelServer) {
        let score = known.map { $0.time + (now - $0.at) } ?? server.time
        let reply = server.beat(view, score: score)
        known = (server.time, now)
        view.received(reply, at: now, into: &events)
    }
}

private func pass(_ span: TimeSpan, _ server: inout ModelServer, _ nodes: inout [ModelNode]) {
    server.time = server.time + span
    for index in nodes.indices { nodes[index].now = nodes[index].now + span }
}

private func cluster(_ names: [String], _ server: inout ModelServer) -> [ModelNode] {
    var nodes = names.enumerated().map { ModelNode($1, boot: UInt64($0 + 1), origin: Int64($0) * 77_000_000_000) }
    for index in nodes.indices { nodes[index].join(server) }
    for _ in 0..<2 {
        for index in nodes.indices { nodes[index].beat(&server) }
        pass(heartbeat, &server, &nodes)
    }
    return nodes
}

@Suite struct NodeIDTests {
    @Test(
        "ids of 1 to 64 plain characters are taken",
        arguments: ["a", "node-1", "A.b_c-9", String(repeating: "x", count: 64)])
    func taken(text: String) throws {
        #expect(try NodeID(text).text == text)
    }

    @Test(
        "other ids are refused with the reason",
        arguments: [
            ("", NodeIDError.empty), (String(repeating: "x", count: 65), .tooLong(bytes: 65)),
            ("a|b", .forbidden(byte: 0x7c, offset: 1)), ("a b", .forbidden(byte: 0x20, offset: 1)),
            ("nodé", .forbidden(byte: 0xc3, offset: 3)), ("a\n", .forbidden(byte: 0x0a, offset: 1)),
        ])
    func refused(text: String, error: NodeIDError) {
        #expect(throws: error) { try NodeID(text) }
    }

    @Test("a boot value reads what it writes and nothing else")
    func boot() {
        for value: UInt64 in [0, 1, 0xdead_beef, .max] {
            #expect(BootID(hex: BootID(value).description) == BootID(value))
        }
        for text in ["", "1", "00000000DEADBEEF", "0x0000000000000", "g000000000000000", "00000000000000000"] {
            #expect(BootID(hex: text) == nil)
        }
    }
}

@Suite struct NodeInfoTests {
    @Test("information reads what it writes")
    func roundTrip() throws {
        var info = NodeInfo(address: "[::1]:8080", boot: BootID(7), heartbeat: .milliseconds(250))
        #expect(
            info.json == #"{"address":"[::1]:8080","boot":"0000000000000007","heartbeatMilliseconds":250}"#)
        #expect(try NodeInfo(json: Array(info.json.utf8), assumed: .seconds(9)) == info)
        info.reach = SocketAddress(ip: .v4Loopback, port: 8080)
        #expect(info.json.contains(#""reach":"127.0.0.1:8080""#))
        #expect(try NodeInfo(json: Array(info.json.utf8), assumed: .seconds(9)) == info)
    }

    @Test(
        "a heartbeat that is absent or absurd is assumed",
        arguments: ["", #","heartbeatMilliseconds":0"#, #","heartbeatMilliseconds":99999999"#])
    func assumed(extra: String) throws {
        let json = #"{"address":"a:1","boot":"0000000000000007"\#(extra)}"#
        #expect(try NodeInfo(json: Array(json.utf8), assumed: .seconds(2)).heartbeat == .seconds(2))
    }

    @Test(
        "hostile information is refused",
        arguments: [
            ("", NodeInfoError.malformed), ("[]", .malformed), ("{}", .malformed),
            (#"{"address":1,"boot":"x"}"#, .malformed),
            (#"{"address":"a","boot":"x"}"#, .badBoot),
            (#"{"address":"a\u0007","boot":"0000000000000007"}"#, .badAddress),
            (String(repeating: "[", count: 1000), .malformed),
            (String(repeating: " ", count: 1025), .tooLong(bytes: 1025)),
        ])
    func hostile(json: String, error: NodeInfoError) {
        #expect(throws: error) { try NodeInfo(json: Array(json.utf8), assumed: heartbeat) }
    }
}

@Suite struct MembershipViewTests {
    @Test("a node is alive to itself before it has heard anything")
    func alone() {
        let lone = ModelNode("a", boot: 1)
        #expect(lone.view.liveNodes == [node("a")])
        #expect(lone.view.liveCount == 1)
    }

    @Test("nodes see each other after one heartbeat each, in the same order everywhere")
    func joining() {
        var server = ModelServer()
        let nodes = cluster(["c", "a", "b"], &server)
        for member in nodes { #expect(member.view.liveNodes == [node("a"), node("b"), node("c")]) }
        #expect(nodes[0].events == [.joined(node("a"), address: "a:8080"), .joined(node("b"), address: "b:8080")])
    }

    @Test("a node that stops is alive until three heartbeats have passed, and is then told once")
    func gone() {
        var server = ModelServer()
        var nodes = cluster(["a", "b"], &server)
        // The last heartbeat of b was one period ago.
        nodes[0].events = []
        nodes[0].beat(&server)
        #expect(nodes[0].view.liveCount == 2)
        pass(heartbeat, &server, &nodes)
        nodes[0].beat(&server)
        #expect(nodes[0].view.liveCount == 2)
        for _ in 0..<3 {
            pass(heartbeat, &server, &nodes)
            nodes[0].beat(&server)
            #expect(nodes[0].view.liveNodes == [node("a")])
        }
        #expect(nodes[0].events == [.left(node("b"))])
        #expect(nodes[0].view.members.map(\.isAlive) == [true, false])
    }

    @Test("a node is judged by its own announced heartbeat")
    func ownHeartbeat() {
        var server = ModelServer()
        var nodes = cluster(["a"], &server)
        server.info[node("slow")] = NodeInfo(address: "s:1", boot: BootID(9), heartbeat: .seconds(5))
        server.scores[node("slow")] = server.time - .seconds(14)
        nodes[0].beat(&server)
        #expect(nodes[0].view.liveNodes == [node("a"), node("slow")])
    }

    @Test("nobody is removed while Redis is unreachable, nor at once when it is back")
    func frozen() {
        var server = ModelServer()
        var nodes = cluster(["a", "b", "c"], &server)
        for index in nodes.indices { nodes[index].events = [] }
        pass(.seconds(60), &server, &nodes)
        for member in nodes { #expect(member.view.liveCount == 3) }
        // a is back first, b a little later, c never.
        nodes[0].beat(&server)
        #expect(nodes[0].view.liveCount == 3)
        pass(heartbeat, &server, &nodes)
        for _ in 0..<4 {
            nodes[1].beat(&server)
            nodes[0].beat(&server)
            pass(heartbeat, &server, &nodes)
        }
        #expect(nodes[0].events == [.left(node("c"))])
        #expect(nodes[1].events == [.left(node("c"))])
    }

    @Test("a server that comes back empty makes nobody leave")
    func emptied() {
        var server = ModelServer()
        var nodes = cluster(["a", "b"], &server)
        for index in nodes.indices { nodes[index].events = [] }
        pass(.seconds(10), &server, &nodes)
        server.scores = [:]
        server.info = [:]
        for _ in 0..<6 {
            for index in nodes.indices { nodes[index].beat(&server) }
            pass(heartbeat, &server, &nodes)
        }
        for member in nodes { #expect(member.events.isEmpty && member.view.liveCount == 2) }
    }

    @Test("a jump of the server's clock makes nobody leave", arguments: [3_600, -3_600] as [Int64])
    func jump(seconds: Int64) {
        var server = ModelServer()
        var nodes = cluster(["a", "b", "c"], &server)
        for index in nodes.indices { nodes[index].events = [] }
        server.time = server.time + .seconds(seconds)
        for _ in 0..<8 {
            for index in nodes.indices { nodes[index].beat(&server) }
            pass(heartbeat, &server, &nodes)
        }
        for member in nodes { #expect(member.events.isEmpty && member.view.liveCount == 3) }
    }

    @Test("a score from far ahead keeps nobody alive")
    func future() {
        var server = ModelServer()
        var nodes = cluster(["a"], &server)
        server.scores[node("ghost")] = server.time + .seconds(1_000_000)
        server.scores[node("max")] = RedisTime(microseconds: .max)
        server.scores[node("min")] = RedisTime(microseconds: .min)
        nodes[0].beat(&server)
        #expect(nodes[0].view.liveNodes == [node("a")])
    }

    @Test("a restart under the same id is no shared id")
    func restart() {
        var server = ModelServer()
        var nodes = cluster(["a", "b"], &server)
        var again = ModelNode("b", boot: 99)
        again.join(server)
        for _ in 0..<5 {
            again.beat(&server)
            nodes[0].beat(&server)
            pass(heartbeat, &server, &nodes)
            again.now = again.now + heartbeat
        }
        #expect(again.events == [.joined(node("a"), address: "a:8080")])
    }

    @Test("two processes under one id are each told of the other, once")
    func sharedID() {
        var server = ModelServer()
        var nodes = [ModelNode("a", boot: 1), ModelNode("a", boot: 2), ModelNode("a", boot: 3)]
        for index in nodes.indices { nodes[index].join(server) }
        for round in 0..<12 {
            // The order changes, so that each finds each of the others before its own.
            for step in nodes.indices { nodes[(step * (round % 2 + 1) + round) % 3].beat(&server) }
            pass(heartbeat, &server, &nodes)
        }
        for (index, member) in nodes.enumerated() {
            let told = member.events.compactMap { event -> BootID? in
                if case .sharedID(_, let boot) = event { return boot }
                return nil
            }
            let others = [BootID(1), BootID(2), BootID(3)].filter { $0 != BootID(UInt64(index + 1)) }
            #expect(told.count == Set(told).count)
            #expect(Set(told) == Set(others))
        }
    }

    @Test("entries of an hour ago and fields without an entry are pruned, at most once a minute, never the node's own")
    func pruning() {
        var server = ModelServer()
        var nodes = cluster(["a"], &server)
        let me = node("a")
        server.scores[node("old")] = server.time - .seconds(3_601)
        server.scores[node("recent")] = server.time - .seconds(3_000)
        server.info[node("orphan")] = NodeInfo(address: "o:1", boot: BootID(5), heartbeat: heartbeat)
        var reply = server.beat(nodes[0].view, score: server.time)
        reply.lastSeen.removeAll { $0.id == me }
        let pruned = nodes[0].view.prune(reply, at: nodes[0].now)
        #expect(pruned?.fields == [node("old"), node("orphan")])
        #expect(pruned?.before == server.time - .seconds(3_600))
        #expect(nodes[0].view.prune(reply, at: nodes[0].now + .seconds(59)) == nil)
        #expect(nodes[0].view.prune(reply, at: nodes[0].now + .seconds(60)) != nil)
    }

    @Test("more members than a cluster can have are not taken in")
    func flood() {
        var server = ModelServer()
        var nodes = cluster(["a"], &server)
        for index in 0..<2_000 { server.scores[node("x\(index)")] = server.time }
        nodes[0].beat(&server)
        #expect(nodes[0].view.liveCount <= MembershipView.membersMax + 1)
        #expect(nodes[0].view.liveNodes.contains(node("a")))
    }
}

@Suite("A node that falls silent")
struct SilenceTests {
    /// Nodes a, b and c, of which c has said its last word; `beats` heartbeats later.
    private func silent(_ server: inout ModelServer, beats: Int = 2) -> [ModelNode] {
        var nodes = cluster(["a", "b", "c"], &server)
        for index in nodes.indices { nodes[index].beat(&server) }
        for _ in 0..<beats { wait(&server, &nodes) }
        for index in nodes.indices { nodes[index].events = [] }
        return nodes
    }

    /// A heartbeat, which c misses.
    private func wait(_ server: inout ModelServer, _ nodes: inout [ModelNode]) {
        pass(heartbeat, &server, &nodes)
        for index in 0..<2 { nodes[index].beat(&server) }
    }

    private func ask(_ member: inout ModelNode, _ answer: SilenceAnswer) -> Int {
        let questions = member.view.questions(mayAskLoopback: true, at: member.now)
        for question in questions { member.answer(question, answer) }
        return questions.count
    }

    @Test("is asked for a connection when it has missed two heartbeats, and with each that it misses")
    func asked() {
        var server = ModelServer()
        var nodes = silent(&server, beats: 1)
        #expect(ask(&nodes[0], .connected) == 0)
        for _ in 0..<20 {
            wait(&server, &nodes)
            let questions = nodes[0].view.questions(mayAskLoopback: false, at: nodes[0].now)
            #expect(questions.map(\.id) == [node("c")])
            #expect(questions.map(\.target.description) == ["10.0.0.3:8080"])
            for question in questions { nodes[0].answer(question, .connected) }
        }
    }

    @Test("is cut off once it is gone, where it takes connections")
    func cutOff() {
        var server = ModelServer()
        var nodes = silent(&server)
        #expect(ask(&nodes[0], .connected) == 1)
        #expect(nodes[0].view.liveCount == 3 && nodes[0].view.cutOffCount == 0 && nodes[0].events.isEmpty)
        wait(&server, &nodes)
        #expect(nodes[0].view.liveNodes == [node("a"), node("b")])
        #expect(nodes[0].view.cutOffCount == 1 && nodes[0].view.sharers == 3)
        #expect(nodes[0].events == [.cutOff(node("c"), address: "c:8080")])
        #expect(nodes[0].view.members.map(\.isCutOff) == [false, false, true])
        // The other has not asked yet.
        #expect(nodes[1].events == [.left(node("c"))])
        #expect(ask(&nodes[1], .connected) == 1)
        #expect(nodes[1].events == [.left(node("c")), .cutOff(node("c"), address: "c:8080")])
    }

    @Test("joins again when it is back")
    func back() {
        var server = ModelServer()
        var nodes = silent(&server)
        #expect(ask(&nodes[0], .connected) == 1)
        wait(&server, &nodes)
        nodes[0].events = []
        nodes[2].join(server)
        nodes[2].beat(&server)
        wait(&server, &nodes)
        #expect(nodes[0].events == [.joined(node("c"), address: "c:8080")])
        #expect(nodes[0].view.liveCount == 3 && nodes[0].view.cutOffCount == 0)
        #expect(ask(&nodes[0], .connected) == 0)
    }

    @Test("is dead where its host refuses connections, at once and until it announces itself again")
    func refused() {
        var server = ModelServer()
        var nodes = silent(&server)
        #expect(ask(&nodes[0], .connected) == 1)
        wait(&server, &nodes)
        #expect(ask(&nodes[0], .refused) == 1)
        #expect(nodes[0].view.cutOffCount == 0)
        #expect(nodes[0].events == [.cutOff(node("c"), address: "c:8080"), .left(node("c"))])
        for _ in 0..<30 {
            wait(&server, &nodes)
            #expect(ask(&nodes[0], .connected) == 0)
        }
        nodes[2].join(server)
        nodes[2].beat(&server)
        for _ in 0..<3 { wait(&server, &nodes) }
        #expect(ask(&nodes[0], .connected) == 1)
        #expect(nodes[0].view.cutOffCount == 1)
    }

    @Test("is given up when three questions in a row get no answer, and asked again more and more seldom")
    func noAnswer() {
        var server = ModelServer()
        var nodes = silent(&server)
        #expect(ask(&nodes[0], .connected) == 1)
        for answer in [SilenceAnswer.none, .none, .connected, .none, .none] {
            wait(&server, &nodes)
            #expect(ask(&nodes[0], answer) == 1)
            #expect(nodes[0].view.cutOffCount == 1)
        }
        wait(&server, &nodes)
        #expect(ask(&nodes[0], .none) == 1)
        #expect(nodes[0].view.cutOffCount == 0)
        #expect(nodes[0].events.last == .left(node("c")))
        var asked = 0
        for _ in 0..<200 {
            wait(&server, &nodes)
            asked += ask(&nodes[0], .none)
        }
        #expect((10...25).contains(asked))
    }

    @Test("is not asked where it has said goodbye")
    func goodbye() {
        var server = ModelServer()
        var nodes = silent(&server, beats: 0)
        server.scores[node("c")] = nil
        server.info[node("c")] = nil
        for _ in 0..<5 {
            wait(&server, &nodes)
            #expect(ask(&nodes[0], .connected) == 0)
        }
        #expect(nodes[0].events == [.left(node("c"))])
    }

    @Test(
        "is not asked at an address that says nothing of it",
        arguments: [
            ("10.0.0.1:8080", "this node's own"), ("10.0.0.2:8080", "that of one who lives"), ("0.0.0.0:8080", "all"),
            ("10.0.0.9:0", "no port"), ("127.0.0.1:8080", "this host's own"),
        ])
    func unusable(address: String, reason: String) {
        var server = ModelServer()
        var nodes = silent(&server, beats: 0)
        server.info[node("c")]?.reach = SocketAddress(address)
        for _ in 0..<3 { wait(&server, &nodes) }
        #expect(nodes[0].view.questions(mayAskLoopback: false, at: nodes[0].now).isEmpty, "\(reason)")
    }

    @Test(
        "is asked where its address is in numbers, if it does not say where to",
        arguments: [("10.0.0.9:80", 1), ("[2001:db8::9]:80", 1), ("gw-9:80", 0), ("", 0)])
    func withoutReach(address: String, count: Int) {
        var server = ModelServer()
        var nodes = silent(&server, beats: 0)
        server.info[node("c")]?.reach = nil
        server.info[node("c")]?.address = address
        for _ in 0..<3 { wait(&server, &nodes) }
        #expect(nodes[0].view.questions(mayAskLoopback: false, at: nodes[0].now).count == count)
    }

    @Test("of several at one address only the latest is asked")
    func sameAddress() {
        var server = ModelServer()
        var nodes = silent(&server)
        server.scores[node("c-before")] = server.time - .seconds(60)
        server.info[node("c-before")] = server.info[node("c")]
        wait(&server, &nodes)
        #expect(nodes[0].view.questions(mayAskLoopback: false, at: nodes[0].now).map(\.id) == [node("c")])
    }

    @Test("divides limits among those whom it knew, whoever has come or gone since")
    func sharers() {
        var server = ModelServer()
        var nodes = silent(&server)
        #expect(ask(&nodes[0], .connected) == 1)
        for _ in 0..<4 {
            pass(heartbeat, &server, &nodes)
            nodes[0].beat(&server)
        }
        #expect(nodes[0].view.liveNodes == [node("a")])
        #expect(nodes[0].view.cutOffCount == 1 && nodes[0].view.sharers == 3)
        // A node that has come since has seen nothing of it.
        var newcomer = ModelNode("d", boot: 4)
        newcomer.join(server)
        newcomer.beat(&server)
        #expect(newcomer.view.questions(mayAskLoopback: false, at: newcomer.now).count == 2)
    }

    @Test("does not count by an answer that comes after it has announced itself")
    func lateAnswer() throws {
        var server = ModelServer()
        var nodes = silent(&server)
        let question = try #require(nodes[0].view.questions(mayAskLoopback: false, at: nodes[0].now).first)
        nodes[2].join(server)
        nodes[2].beat(&server)
        for _ in 0..<3 { wait(&server, &nodes) }
        nodes[0].answer(question, .connected)
        #expect(nodes[0].view.cutOffCount == 0)
    }

    @Test("is asked with at most sixteen at a time, and every one has its turn")
    func many() {
        var server = ModelServer()
        var nodes = cluster(["a", "b"], &server)
        for index in 0..<40 {
            let id = node("x\(index)")
            server.scores[id] = server.time - .seconds(60)
            server.info[id] = NodeInfo(address: "10.1.0.\(index):80", boot: BootID(9), heartbeat: heartbeat)
        }
        var asked: Set<NodeID> = []
        for _ in 0..<3 {
            wait(&server, &nodes)
            let questions = nodes[0].view.questions(mayAskLoopback: false, at: nodes[0].now)
            #expect(questions.count <= SilentMembers.askedMax)
            #expect(nodes[0].view.questions(mayAskLoopback: false, at: nodes[0].now).isEmpty)
            asked.formUnion(questions.map(\.id).filter { $0 != node("b") })
            for question in questions { nodes[0].answer(question, .refused) }
        }
        #expect(asked.count == 40)
    }

    @Test("stays in Redis while it is cut off, however long that is")
    func pruning() {
        var server = ModelServer()
        var nodes = silent(&server)
        #expect(ask(&nodes[0], .connected) == 1)
        server.scores[node("old")] = server.time - .seconds(60)
        let lastSeen = server.scores[node("c")]
        for _ in 0..<3 { wait(&server, &nodes) }
        pass(.seconds(4_000), &server, &nodes)
        for _ in 0..<5 { wait(&server, &nodes) }
        #expect(nodes[0].view.cutOffCount == 1)
        let pruned = nodes[0].view.prune(server.beat(nodes[0].view, score: server.time), at: nodes[0].now)
        #expect(pruned?.fields == [node("old")])
        #expect(pruned?.before == lastSeen.map { $0 - .microseconds(1) })
    }
}
