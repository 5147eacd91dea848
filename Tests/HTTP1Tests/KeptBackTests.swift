import HTTP1
import LinuxIO
import Testing

@Suite("What is kept back")
struct KeptBackTests {
    private static let names = GuardedNames(["X-User", "x.api_key"])

    @Test(
        "names of the configuration's choice are kept back in every spelling that CGI gives the same name",
        arguments: [
            ("X-User", true), ("x-user", true), ("X_User", true), ("X.User", true), ("X!USER", true), ("x~user", true),
            ("X.API.Key", true), ("X-Api_Key", true), ("X-API|Key", true), ("XUser", false), ("X-User-", false),
            ("X-Users", false), ("-X-User", false), ("X-Uses", false), ("Y-User", false),
        ])
    func spellings(_ name: String, _ isKept: Bool) {
        let input = bytes("GET / HTTP/1.1\r\nHost: h\r\n\(name): admin\r\nX-Other: 1\r\n\r\n")
        var head = parse(input, as: RequestHead.self).0
        head.keepBack(Self.names, input.span)
        #expect((0..<head.fields.count).map { head.fields[$0].hopByHop } == [false, isKept, false])
        var output = ByteBuffer()
        copyTrailers(bytes("\(name): admin\r\n").span, without: Self.names, to: &output)
        #expect(output.isEmpty == isKept)
    }
}
