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
