import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("What becomes of requests, in the words of metrics and logs")
struct OutcomeTests {
    /// A node whose access log has these columns, and a reader of its lines.
    private static func node(
        _ scene: Scene, _ file: File, in directory: TemporaryDirectory, fields: String = "target, status, outcome"
    ) throws -> (node: SluiceNode, lines: () -> [String]) {
        let path = "\(directory.path)/access.log"
        let node = try scene.node(file, ["--set", "gateway.accessLog={path: \(path), fields: [\(fields)]}"])
        return (node, { readFile(path).split(separator: "\n").map(String.init) })
    }

    static let endings: [(name: String, head: String, outcome: String)] = [
        ("without a length", "HTTP/1.1 200 OK\r\nConnection: close\r\n", "proxied"),
        ("without a word on the connection", "HTTP/1.1 200 OK\r\n", "proxied"),
        ("of HTTP/1.0", "HTTP/1.0 200 OK\r\n", "proxied"),
        ("too short for its length", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n", "broken"),
        ("without its last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", "broken"),
    ]

    @Test("an answer that the end of its connection ends is whole; one that breaks off is not", arguments: endings)
    func untilClose(row: (name: String, head: String, outcome: String)) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let body = row.head.contains("chunked") ? "5\r\nhello\r\n" : "hello"
                try exchange.wire.send("\(row.head)Content-Type: text/plain\r\n\r\n\(body)")
                return .close
            }
            let directory = try TemporaryDirectory()
            let (node, lines) = try Self.node(
                scene, File([backend], "transforms: {compression: {types: [\"text/*\"], minBytes: 0}}"), in: directory)
            for (version, fields) in [("1.1", ""), ("1.0", ""), ("1.1", "Accept-Encoding: gzip\r\n")] {
                let answer = try? node.ask("GET /x HTTP/\(version)", fields: fields)
                #expect(row.outcome == "broken" || answer?.status == 200)
            }
            try eventually("all are logged") { lines().count == 3 }
            #expect(lines() == Array(repeating: "\"/x\" 200 \(row.outcome)", count: 3))
            #expect(try node.metrics().value("sluice_requests_total", ["outcome": row.outcome]) == 3)
        }
    }
}
