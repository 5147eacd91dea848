import Glibc
import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("After mixed faults")
struct FlatnessTests {
    /// What a backend does instead of answering; it is asked for it by the target.
    private static func serve(_ wire: Wire) throws {
        while let head = try wire.readHead() {
            switch head.target {
            case "/cut": try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            case "/chunk": try wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")
            case "/garbage": try wire.send("\u{1}\u{2}\u{3}\r\n\r\n")
            case "/flood": try wire.send(String(repeating: "HTTP/1.1 103 E\r\n\r\n", count: 50))
            case "/reset": wire.resetOnClose()
            case "/silent": break
            case "/surplus":
                try wire.send(
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
                continue
            case "/early":
                try wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            default:
                if let length = head.value("Content-Length").flatMap({ Int($0) }) { _ = try wire.read(length) }
                try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            }
            return
        }
    }

    /// What a client sends, whether it waits for the end of the connection, and whether it goes with a reset.
    private static let clients: [(request: String, waits: Bool, resets: Bool)] = [
        ("GET /fine HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, false),
        ("GET /fine HTTP/1.1\r\nHost: h\r\n\r\nGET /fine HTTP/1.0\r\n\r\n", true, false),
        ("POST /fine HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde", true, false),
        ("GET /cut HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, false),
        ("GET /chunk HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, false),
        ("GET /garbage HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, false),
        ("GET /flood HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, false),
        ("POST /reset HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", true, false),
        ("GET /surplus HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, false),
        ("PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc", true, false),
        ("GET /silent HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, false),
        ("GET /fine HTTP/1.1\r\nHost: h\r\n\r\n", false, true),
        ("POST /fine HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc", false, true),
        ("POST /fine HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc", false, false),
        ("POST /fine HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd", true, false),
        ("GET /fine HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", true, false),
        ("GET /fine HTTP/1.1\r\nHost: h\r\nA: \(String(repeating: "a", count: 40_000))\r\n\r\n", true, false),
        ("GET /fine HTTP/1.1\r\nHo", false, false),
        ("", false, false),
        ("\u{16}\u{3}\u{1}", false, true),
    ]

    private static func round(_ node: SluiceNode, _ count: Int) throws {
        for i in 0..<count {
            let (request, waits, resets) = clients[i % clients.count]
            let client = try node.connect()
            // Refused halfway, the rest may find nobody.
            try? client.send(request.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) })
            if waits { _ = try? client.readToEnd() }
            if resets { client.resetOnClose() }
        }
    }

    /// SLUICE_FAULT_ROUNDS asks for longer runs, of 400 exchanges each.
    @Test("memory and descriptors are where they were")
    func flat() throws {
        try Scene.play { scene in
            let backend = scene.add(try RecordingBackend(serving: { _, wire, _ in try Self.serve(wire) }))
            var file = File([
                File.Service(
                    path: "/", urls: [backend.url], more: "timeouts: {response: 1s, idle: 1s}",
                    health: "active: false, failures: 1000")
            ])
            file.gateway = "limits: {headerTimeout: 1s, bodyTimeout: 1s, idleTimeout: 1s}"
            let node = try scene.node(file)
            let idle = node.process.descriptorCount
            let count = 20 * Self.clients.count
            let rounds = unsafe getenv("SLUICE_FAULT_ROUNDS").flatMap { unsafe Int(String(cString: $0)) } ?? 6
            // Buffers, tables and the allocator's arenas find their sizes.
            for _ in 0..<3 { try Self.round(node, count) }
            try eventually("all descriptors are given back") { node.process.descriptorCount <= idle }
            let before = node.process.residentBytes
            for _ in 0..<rounds { try Self.round(node, count) }
            try eventually("all descriptors are given back") { node.process.descriptorCount <= idle }
            let growth = node.process.residentBytes - before
            print(
                "FlatnessTests: \(growth) bytes after \(rounds * count) exchanges, \(node.process.descriptorCount) of \(idle) descriptors"
            )
            // A leak of 500 bytes an exchange would show.
            #expect(growth < rounds * count * 500, "\(growth) bytes after \(rounds * count) exchanges")
            #expect(try node.ask("GET /fine HTTP/1.1").text == "ok")
        }
    }
}
