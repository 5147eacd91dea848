import Hiredis
import LinuxIO
import Testing

@Suite("Commands")
struct RedisCommandTests {
    @Test("every kind of argument travels with its length, whatever bytes it holds")
    func arguments() {
        var command = RedisCommand()
        var output = ByteBuffer()
        command.begin("SET")
        command.add([0, 13, 10, 255])
        command.add("%s %b")
        command.add(String("snö"))
        command.add(decimal: .min)
        command.add { buffer in
            buffer.append("a:" as StaticString)
            buffer.append(decimal: 7)
        }
        let bytes: [UInt8] = []
        command.add(bytes.span)
        #expect(command.argumentCount == 7)
        command.append(to: &output)
        let expected: [UInt8] =
            Array("*7\r\n$3\r\nSET\r\n$4\r\n".utf8) + [0, 13, 10, 255]
            + Array(
                "\r\n$5\r\n%s %b\r\n$4\r\nsnö\r\n$20\r\n-9223372036854775808\r\n$3\r\na:7\r\n$0\r\n\r\n".utf8)
        #expect(output.array == expected)
    }

    @Test("one value builds many commands, each behind the other, and nothing of the last one is left")
    func reuse() {
        var command = RedisCommand()
        var output = ByteBuffer()
        for _ in 0..<2 {
            command.begin("GET")
            command.add("k" as StaticString)
            command.append(to: &output)
        }
        command.begin("PING")
        command.append(to: &output)
        #expect(output.text == "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n")
    }

    @Test("a command of ten thousand arguments is whole")
    func manyArguments() {
        var command = RedisCommand()
        var output = ByteBuffer()
        command.begin("DEL")
        for i in 0..<9_999 { command.add(decimal: Int64(i)) }
        command.append(to: &output)
        #expect(output.text.hasPrefix("*10000\r\n$3\r\nDEL\r\n$1\r\n0\r\n"))
        #expect(output.text.hasSuffix("$4\r\n9998\r\n"))
    }
}
