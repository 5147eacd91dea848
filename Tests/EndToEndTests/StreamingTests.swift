import LinuxIO
import Synchronization
import TestSupport
import Testing

@Suite("Large bodies are streamed")
struct StreamingTests {
    private static let size = 200 << 20
    /// What a node may grow by: its buffers, and what its allocator keeps.
    private static let growthMax = 30 << 20

    private static func send(_ count: Int, chunked: Bool, on wire: Wire) throws {
        var pattern = Pattern()
        while pattern.offset < count {
            let piece = Array(pattern.next(count - pattern.offset))
            if chunked { try wire.send(String(piece.count, radix: 16) + "\r\n") }
            try wire.send(piece)
            if chunked { try wire.send("\r\n") }
        }
        if chunked { try wire.send("0\r\n\r\n") }
    }

    @Test("a large upload arrives byte for byte and leaves the node's memory flat", arguments: [false, true])
    func upload(chunked: Bool) throws {
        try Scene.play { scene in
            let intact = Atomic<Bool>(false)
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, _ in
                    while let head = try wire.readHead() {
                        var pattern = Pattern()
                        var same = true
                        if head.value("Content-Length") != nil {
                            try wire.stream(Self.size) { if !pattern.matches($0) { same = false } }
                        } else {
                            while let line = try wire.readLine(), let size = Int(line, radix: 16), size > 0 {
                                try wire.stream(size) { if !pattern.matches($0) { same = false } }
                                _ = try wire.read(2)
                            }
                            _ = try wire.read(2)
                        }
                        intact.store(same && pattern.offset == Self.size, ordering: .relaxed)
                        try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    }
                }))
            let node = try scene.node(File([backend]))
            let before = node.process.residentBytes
            #expect(before > 0)
            let framing = chunked ? "Transfer-Encoding: chunked" : "Content-Length: \(Self.size)"
            let client = try node.connect()
            try client.send("POST / HTTP/1.1\r\nHost: test\r\n\(framing)\r\n\r\n")
            try Self.send(Self.size, chunked: chunked, on: client)
            #expect(try client.readResponse().status == 200)
            let wasIntact = intact.load(ordering: .relaxed)
            #expect(wasIntact)
            let growth = node.process.residentBytes - before
            #expect(growth < Self.growthMax, "grew by \(growth) bytes")
        }
    }

    @Test(
        "a large download to a slow client arrives byte for byte and leaves the node's memory flat",
        arguments: [false, true])
    func download(chunked: Bool) throws {
        try Scene.play { scene in
            let sent = Atomic<Int>(0)
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, _ in
                    while try wire.readHead() != nil {
                        let framing = chunked ? "Transfer-Encoding: chunked" : "Content-Length: \(Self.size)"
                        try wire.send("HTTP/1.1 200 OK\r\n\(framing)\r\n\r\n")
                        try Self.send(Self.size, chunked: chunked, on: wire)
                        sent.store(1, ordering: .relaxed)
                    }
                }))
            let node = try scene.node(File([backend]))
            let before = node.process.residentBytes
            #expect(before > 0)
            let client = try node.connect(receiveBuffer: 65_536)
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            let head = try #require(try client.readHead())
            #expect(head.status == 200)
            // The client reads nothing until the node has stopped taking from the backend.
            var last = -1
            try eventually("the node stops reading") {
                let now = node.process.residentBytes
                defer { last = now }
                return now == last
            }
            let sentAll = sent.load(ordering: .relaxed)
            #expect(sentAll == 0, "the backend got rid of everything although nobody reads")
            var pattern = Pattern()
            var same = true
            var highest = 0
            var pieces = 0
            func take(_ piece: ArraySlice<UInt8>) {
                if !pattern.matches(piece) { same = false }
                pieces += 1
                if pieces % 1_000 == 0 { highest = max(highest, node.process.residentBytes) }
            }
            if chunked {
                while let line = try client.readLine(), let size = Int(line, radix: 16), size > 0 {
                    try client.stream(size, take)
                    _ = try client.read(2)
                }
            } else {
                try client.stream(Self.size, take)
            }
            #expect(same && pattern.offset == Self.size)
            let growth = max(highest, node.process.residentBytes) - before
            #expect(growth < Self.growthMax, "grew by \(growth) bytes")
        }
    }

    @Test("a client that resets while its answer is awaited leaves no request behind at the backend")
    func resetWhileWaiting() throws {
        try Scene.play { scene in
            let reached = Atomic<Bool>(false)
            let ended = Atomic<Bool>(false)
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, _ in
                    guard let head = try wire.readHead(), head.target == "/slow" else { return }
                    reached.store(true, ordering: .relaxed)
                    // No answer: only the node's end of the connection lets this go on.
                    _ = try? wire.readHead()
                    ended.store(true, ordering: .relaxed)
                }))
            let node = try scene.node(File([backend]))
            do {
                let client = try node.connect()
                try client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
                try eventually("the backend has the request") { reached.load(ordering: .relaxed) }
                client.resetOnClose()
            }
            try eventually("the node has let go of the backend") { ended.load(ordering: .relaxed) }
        }
    }
}
