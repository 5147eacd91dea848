import Glibc
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

/// The two ends of a tunnel, played by the tests.
enum TunnelScene {
    static let request =
        "GET /chat HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    static let answer =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

    /// A backend that switches, says `greeting` in the same packet, and then does what `body` says.
    static func backend(
        _ scene: Scene, greeting: String = "", isWell: @escaping @Sendable () -> Bool = { true },
        _ body: @escaping @Sendable (RecordingBackend, Wire) throws -> Void
    ) throws -> RecordingBackend {
        scene.add(
            try RecordingBackend(serving: { backend, wire, _ in
                guard let request = try wire.readHead() else { return }
                if request.target == "/health" {
                    let status = isWell() ? "200 OK" : "500 Oh"
                    try wire.send("HTTP/1.1 \(status)\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                }
                backend.record(request)
                try wire.send(answer + greeting)
                try body(backend, wire)
            }))
    }

    /// A backend that switches and sends everything back until the end.
    static func echo(_ scene: Scene) throws -> RecordingBackend {
        try backend(scene) { _, wire in while true { try wire.send(try wire.read(1)) } }
    }

    /// A client whose upgrade has been answered with 101.
    static func open(
        _ node: SluiceNode, _ request: String = request, from source: IPAddress? = nil, receiveBuffer: Int32? = nil
    ) throws -> Wire {
        let client = try node.connect(from: source, receiveBuffer: receiveBuffer)
        try client.send(request)
        let head = try client.readHead()
        #expect(head?.status == 101)
        return client
    }
}

@Suite("Upgrades and tunnels")
struct TunnelTests {
    @Test("an upgrade reaches the backend, its answer the client, and what follows goes both ways byte for byte")
    func passes() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.backend(scene, greeting: "\u{81}hello") { backend, wire in
                let got = try wire.read(9)
                try wire.send(got.reversed())
                _ = try? wire.readToEnd()
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            try client.send(TunnelScene.request)
            let head = try #require(try client.readHead())
            #expect(
                head.head
                    == "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                    + "Via: 1.1 sluice\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            #expect(try client.read(7) == Array("\u{81}hello".utf8))
            // Byte by byte, with all values that a text protocol would stumble over.
            let bytes: [UInt8] = [0, 13, 10, 13, 10, 255, 0x88, 0x80, 71]
            for byte in bytes { try client.send([byte]) }
            #expect(try client.read(9) == bytes.reversed())
            let request = try #require(backend.requests.first)
            #expect(
                request.head
                    == "GET /chat HTTP/1.1\r\nHost: test\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    + "Sec-WebSocket-Version: 13\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: test\r\n"
                    + "X-Forwarded-Proto: http\r\nVia: 1.1 sluice\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    + "X-Origin-Host: \(backend.address)\r\n\r\n")
        }
    }

    @Test("what a client sends before it is answered belongs to the tunnel")
    func early() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            let node = try scene.node(File([backend]))
            let client = try TunnelScene.open(node, TunnelScene.request + "GET /hidden HTTP/1.1\r\n")
            #expect(try client.read(22) == Array("GET /hidden HTTP/1.1\r\n".utf8))
            #expect(backend.requests.count == 1)
        }
    }

    static let plain: [(String, String)] = [
        ("h2c", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"),
        ("an unknown one", "Upgrade: spdy/3\r\nConnection: upgrade\r\n"),
        ("no option", "Upgrade: websocket\r\n"),
        ("no field", "Connection: upgrade\r\n"),
        ("two lines of unknown ones", "Upgrade: spdy/3\r\nUpgrade: h2c\r\nConnection: upgrade\r\n"),
        ("a body", "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 1\r\n"),
    ]

    @Test("an upgrade that is not passed on is answered as plain HTTP", arguments: plain)
    func notPassedOn(name: String, fields: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            let body = fields.contains("Content-Length") ? "x" : ""
            for _ in 0..<2 {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\(fields)\r\n\(body)")
                #expect(try client.readResponse().status == 200)
            }
            for request in backend.requests {
                for name in ["Upgrade", "Connection", "HTTP2-Settings"] {
                    #expect(request.values(name).isEmpty, "\(name) reached the backend")
                }
            }
        }
    }

    @Test("HTTP/1.0, and a service that lists nothing, have no upgrades", arguments: ["1.0", "1.1"])
    func none(version: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend], version == "1.1" ? "upgrades: []" : ""))
            let answer = try node.ask("GET / HTTP/\(version)", fields: "Upgrade: websocket\r\nConnection: Upgrade\r\n")
            #expect(answer.status == 200)
            #expect(backend.requests[0].values("Upgrade").isEmpty)
        }
    }

    @Test(
        "of several protocols, on one line or on several, the first that is listed is asked for",
        arguments: [
            "Upgrade: h2c, CHAT/1.2, websocket\r\n", "Upgrade: h2c\r\nUpgrade: CHAT/1.2\r\nUpgrade: websocket\r\n",
            "Upgrade: h2c, spdy/3\r\nX: 1\r\nupgrade: CHAT/1.2, chat\r\n", "Upgrade:\r\nUpgrade: CHAT/1.2\r\n",
        ])
    func listed(fields: String) throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { backend, wire, _ in
                    guard let request = try wire.readHead() else { return }
                    backend.record(request)
                    try wire.send("HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: Chat/2\r\n\r\n")
                    try wire.send(try wire.read(2))
                }))
            let node = try scene.node(File([backend], "upgrades: [chat]"))
            let client = try node.connect()
            try client.send("POST / HTTP/1.1\r\nHost: test\r\n\(fields)Connection: Upgrade\r\n\r\n")
            let head = try client.readHead()
            #expect(head?.status == 101)
            #expect(head?.value("Upgrade") == "Chat/2")
            try client.send("ab")
            #expect(try client.readToEnd() == Array("ab".utf8))
            #expect(backend.requests[0].values("Upgrade") == ["CHAT/1.2"])
        }
    }

    static let wrong = [
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ]

    @Test("a 101 that does not name the protocol asked for is 502, and what follows reaches nobody", arguments: wrong)
    func wrongAnswer(answer: String) throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, _ in
                    guard try wire.readHead() != nil else { return }
                    try wire.send(answer + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden")
                    _ = try? wire.readToEnd()
                }))
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            try client.send(TunnelScene.request)
            #expect(try client.readResponse().status == 502)
            try client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            #expect(try client.readResponse().status == 502)
            #expect(try client.endsHere())
        }
    }

    @Test("a 101 that nobody asked for is 502")
    func unasked() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            let node = try scene.node(File([backend]))
            let answer = try node.ask()
            #expect(answer.status == 502)
            #expect(problemTitle(answer) == "Bad gateway")
        }
    }

    @Test(
        "an upgrade that the backend refuses is an ordinary exchange",
        arguments: ["Upgrade: WebSocket\r\n", "Upgrade: h2c\r\nUpgrade: WebSocket\r\n"])
    func refused(wanted: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer(
                    "no", status: "426 Upgrade Required", fields: "\(wanted)Connection: Upgrade\r\n")
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for _ in 0..<2 {
                try client.send(TunnelScene.request)
                let answer = try client.readResponse()
                #expect(answer.status == 426)
                #expect(answer.text == "no")
                // RFC 9110 §15.5.22.
                #expect(answer.values("Upgrade") == ["WebSocket"])
                #expect(answer.value("Connection") == "Upgrade")
            }
            #expect(backend.connections == 1)
        }
    }

    @Test("the client's end of sending is passed on, and the backend goes on")
    func clientEnds() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.backend(scene) { _, wire in
                let all = try wire.readToEnd()
                for _ in 0..<3 { try wire.send(all) }
            }
            let node = try scene.node(File([backend]))
            let before = node.process.descriptorCount
            let client = try TunnelScene.open(node)
            try client.send("abc")
            client.endSending()
            #expect(try client.readToEnd() == Array("abcabcabc".utf8))
            try eventually("both connections are closed") { node.process.descriptorCount == before }
        }
    }

    @Test("the backend's end of sending is passed on, and the client goes on")
    func backendEnds() throws {
        try Scene.play { scene in
            let got = Mutex<[UInt8]>([])
            let backend = try TunnelScene.backend(scene) { _, wire in
                try wire.send("bye")
                wire.endSending()
                let all = try wire.readToEnd()
                got.withLock { $0 = all }
            }
            let node = try scene.node(File([backend]))
            let client = try TunnelScene.open(node)
            #expect(try client.readToEnd() == Array("bye".utf8))
            try client.send("not yet")
            client.endSending()
            try eventually("the backend has the rest") { got.withLock { $0 } == Array("not yet".utf8) }
        }
    }

    @Test("a backend that resets ends the tunnel, behind what it said before")
    func backendResets() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.backend(scene) { _, wire in
                // Unread bytes and a close: the kernel resets the connection, and the last words must arrive all the same.
                try wire.send("last words")
                _ = try wire.read(1)
            }
            let node = try scene.node(File([backend]))
            let before = node.process.descriptorCount
            let client = try TunnelScene.open(node)
            try client.send("abc")
            #expect(try client.readToEnd() == Array("last words".utf8))
            client.close()
            try eventually("both connections are closed") { node.process.descriptorCount == before }
        }
    }

    @Test("a client that resets frees both connections")
    func clientResets() throws {
        try Scene.play { scene in
            let ended = Atomic<Bool>(false)
            let backend = try TunnelScene.backend(scene) { _, wire in
                _ = try? wire.readToEnd()
                ended.store(true, ordering: .relaxed)
            }
            let node = try scene.node(File([backend]))
            let before = node.process.descriptorCount
            do {
                let client = try TunnelScene.open(node)
                client.resetOnClose()
            }
            try eventually("the backend sees the end") { ended.load(ordering: .relaxed) }
            try eventually("both connections are closed") { node.process.descriptorCount == before }
        }
    }

    private static let size = 64 << 20
    private static let growthMax = 8 << 20

    private static func sendPattern(_ wire: Wire) throws {
        var pattern = Pattern()
        while pattern.offset < size { try wire.send(Array(pattern.next(min(65_536, size - pattern.offset)))) }
    }

    private static func takePattern(_ wire: Wire) throws -> Bool {
        var pattern = Pattern()
        var same = true
        try wire.stream(size) { if !pattern.matches($0) { same = false } }
        return same
    }

    @Test("a side that does not read stops the other one, and the node's memory stays flat")
    func backPressure() throws {
        try Scene.play { scene in
            let sentAll = Atomic<Bool>(false)
            let mayRead = Atomic<Bool>(false)
            let gotAll = Atomic<Bool>(false)
            let backend = try TunnelScene.backend(scene) { _, wire in
                try Self.sendPattern(wire)
                sentAll.store(true, ordering: .relaxed)
                try eventually("the backend may read") { mayRead.load(ordering: .relaxed) }
                let same = try Self.takePattern(wire)
                gotAll.store(same, ordering: .relaxed)
            }
            let node = try scene.node(File([backend]))
            let before = node.process.residentBytes
            let client = try TunnelScene.open(node, receiveBuffer: 65_536)
            func settled() throws {
                var last = -1
                try eventually("the node stops reading") {
                    let now = node.process.residentBytes
                    defer { last = now }
                    return now == last
                }
            }
            try settled()
            let wasSent = sentAll.load(ordering: .relaxed)
            #expect(!wasSent, "the backend got rid of everything although nobody reads")
            #expect(try Self.takePattern(client))
            mayRead.store(true, ordering: .relaxed)
            try Self.sendPattern(client)
            try eventually("the backend has everything") { gotAll.load(ordering: .relaxed) }
            let growth = node.process.residentBytes - before
            #expect(growth < Self.growthMax, "grew by \(growth) bytes")
        }
    }

    @Test("both directions at once, in random cuts, arrive byte for byte", arguments: [1, 2, 3] as [UInt64])
    func duplex(seed: UInt64) throws {
        /// Sends the pattern in pieces of random sizes, many of them tiny.
        @Sendable func sendCut(_ wire: Wire, _ seed: UInt64) throws {
            var generator = SplitMix64(seed: seed)
            var pattern = Pattern()
            while pattern.offset < Self.duplexSize {
                let most = generator.next() % 4 == 0 ? 60_000 : 40
                let size = 1 + Int(generator.next() % UInt64(most))
                try wire.send(Array(pattern.next(min(size, Self.duplexSize - pattern.offset))))
            }
            wire.endSending()
        }
        @Sendable func takeAll(_ wire: Wire) throws -> Bool {
            var pattern = Pattern()
            var same = true
            try wire.stream(Self.duplexSize) { if !pattern.matches($0) { same = false } }
            return try wire.endsHere() && same
        }
        try Scene.play { scene in
            let gotAll = Atomic<Bool>(false)
            let backend = try TunnelScene.backend(scene) { _, wire in
                let sender = OSThread(name: "sender") { try? sendCut(wire, seed &+ 100) }
                defer { sender.join() }
                let same = try takeAll(wire)
                gotAll.store(same, ordering: .relaxed)
            }
            let node = try scene.node(File([backend]))
            let before = node.process.descriptorCount
            let client = try TunnelScene.open(node)
            let sender = OSThread(name: "sender") { try? sendCut(client, seed) }
            defer { sender.join() }
            #expect(try takeAll(client))
            try eventually("the backend has everything") { gotAll.load(ordering: .relaxed) }
            try eventually("both connections are closed") { node.process.descriptorCount == before }
        }
    }

    private static let duplexSize = 4 << 20

    @Test("a tunnel in which nothing moves ends")
    func idle() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            let node = try scene.node(File([backend], "timeouts: {tunnel: 150ms}"))
            let before = node.process.descriptorCount
            let client = try TunnelScene.open(node)
            try client.send("a")
            #expect(try client.read(1) == Array("a".utf8))
            #expect(try client.endsHere())
            client.close()
            try eventually("both connections are closed") { node.process.descriptorCount == before }
        }
    }
}
