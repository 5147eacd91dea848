import Hiredis
import LinuxIO
import Testing

@Suite("Commands")
struct CommandWriterTests {
    @Test("every kind of argument travels with its length, whatever bytes it holds")
    func arguments() {
        var writer = CommandWriter()
        writer.add("SET")
        let binary: [UInt8] = [0, 13, 10, 255]
        writer.add(binary.span)
        writer.add("%s %b")
        writer.add(String("snö"))
        writer.add(Int64.min)
        writer.add { buffer in
            buffer.append("a:" as StaticString)
            buffer.append(decimal: 7)
        }
        let bytes: [UInt8] = []
        writer.add(bytes.span)
        writer.end()
        let expected: [UInt8] =
            Array("*7\r\n$3\r\nSET\r\n$4\r\n".utf8) + [0, 13, 10, 255]
            + Array(
                "\r\n$5\r\n%s %b\r\n$4\r\nsnö\r\n$20\r\n-9223372036854775808\r\n$3\r\na:7\r\n$0\r\n\r\n".utf8)
        #expect(writer.output.array == expected)
    }

    @Test("one value builds many commands, each behind the other, and nothing of the last one is left")
    func reuse() {
        var writer = CommandWriter()
        for _ in 0..<2 {
            writer.add("GET")
            writer.add("k" as StaticString)
            writer.end()
        }
        writer.add("PING")
        writer.end()
        #expect(
            writer.output.text == "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n")
    }

    @Test("a command of ten thousand arguments is whole")
    func manyArguments() {
        var writer = CommandWriter()
        writer.add("DEL")
        for i in 0..<9_999 { writer.add(Int64(i)) }
        writer.end()
        #expect(writer.output.text.hasPrefix("*10000\r\n$3\r\nDEL\r\n$1\r\n0\r\n"))
        #expect(writer.output.text.hasSuffix("$4\r\n9998\r\n"))
    }
}
