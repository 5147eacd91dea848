import LinuxIO
import Testing

@testable import Transforms

@Suite("Heads without some of their lines")
struct HeadTests {
    private func copied(_ head: String, _ names: [String], prefixes: [String] = []) -> String {
        var input = ByteBuffer()
        input.append(head)
        var output = ByteBuffer()
        copyHead(input.bytes, dropping: FoldedNames(names, prefixes: prefixes), to: &output)
        return output.text
    }

    @Test("lines go by their name, in any spelling that backends may take for it")
    func drops() {
        let head = "GET /x-a: 1 HTTP/1.1\r\nX-A: 1\r\nx_a: 2\r\nX.A:3\r\nX-AB: 4\r\nB:\r\nX: X-A: 5\r\n"
        #expect(copied(head, ["x-a"]) == "GET /x-a: 1 HTTP/1.1\r\nX-AB: 4\r\nB:\r\nX: X-A: 5\r\n")
        #expect(copied(head, []) == head)
        #expect(copied(head, ["b"], prefixes: ["X-"]) == "GET /x-a: 1 HTTP/1.1\r\nX: X-A: 5\r\n")
        #expect(copied(head + "\r\n", ["B"]) == head.replacing("B:\r\n", with: "") + "\r\n")
    }

    @Test("lines are added to a message where it has none of that name, in front of the empty line")
    func inserts() {
        func inserted(_ lines: String, _ message: String) -> String {
            var added = ByteBuffer()
            var output = ByteBuffer()
            added.append(lines)
            output.append(message)
            insertLines(added.bytes, into: &output)
            return output.text
        }
        let lines = "X-A: 1\r\nX-B: 2\r\n"
        let rest = "\r\nX-A: body\r\n\r\n"
        let body = "\r\n" + rest
        #expect(
            inserted(lines, "HTTP/1.1 200 X-A: 3\r\nC: d\(body)")
                == "HTTP/1.1 200 X-A: 3\r\nC: d\r\n\(lines)\(rest)")
        #expect(inserted(lines, "HTTP/1.1 200 OK\(body)") == "HTTP/1.1 200 OK\r\n\(lines)\(rest)")
        #expect(
            inserted(lines, "HTTP/1.1 200 OK\r\nx_b:\r\nX-AB: 1\(body)")
                == "HTTP/1.1 200 OK\r\nx_b:\r\nX-AB: 1\r\nX-A: 1\r\n\(rest)")
        #expect(inserted("", "HTTP/1.1 200 OK\(body)") == "HTTP/1.1 200 OK\(body)")
    }

    @Test("a head is asked for its names, and neither for its start line nor for its values")
    func has() {
        func has(_ names: [String], prefixes: [String] = []) -> Bool {
            var head = ByteBuffer()
            head.append("GET /b: c HTTP/1.1\r\nX_A:\r\nC: B: 1\r\n\r\n")
            return hasLine(head.bytes, of: FoldedNames(names, prefixes: prefixes))
        }
        #expect(has(["x-a"]) && has(["c"]) && has(["d", "C"]) && has([], prefixes: ["x-"]))
        #expect(!has(["b"]) && !has(["x"]) && !has([]) && !has([], prefixes: ["get"]))
    }

    @Test(
        "a line is its name and its value, without what stands around it",
        arguments: [
            ("A: b\r\n", "A", "b"), ("A:b c\t \r\n", "A", "b c"), ("A:\r\n", "A", ""), ("A: \t\r\n", "A", ""),
            ("A: b: c\r\n", "A", "b: c"), ("\r\n", "", ""), ("A: b", "A", "b"),
        ])
    func walks(line: String, name: String, value: String) {
        let bytes = Array("S: t\r\n\(line)".utf8)
        var walk = LineWalk(behindStartLineOf: bytes.span)
        let isThere = walk.advance(in: bytes.span)
        #expect(isThere)
        #expect(String(decoding: bytes[walk.line], as: UTF8.self) == line)
        #expect(String(decoding: bytes[walk.name], as: UTF8.self) == name)
        #expect(String(decoding: bytes[walk.value(in: bytes.span)], as: UTF8.self) == value)
        let isMore = walk.advance(in: bytes.span)
        #expect(!isMore)
    }

    @Test("strong tags become weak where that is asked for")
    func tags() {
        var input = ByteBuffer()
        input.append("HTTP/1.1 200 OK\r\nETag: \"a\"\r\netag:W/\"b\"\r\nETag:\r\nETags: \"c\"\r\n\r\n")
        var output = ByteBuffer()
        copyHead(input.bytes, dropping: FoldedNames([]), weakensTags: true, to: &output)
        #expect(
            output.text == "HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\netag:W/\"b\"\r\nETag:\r\nETags: \"c\"\r\n\r\n")
    }
}
