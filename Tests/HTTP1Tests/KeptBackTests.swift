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

    @Test(
        "a parameter is found by its name in every spelling that means the same, with its value as it stands",
        arguments: [
            ("k_y=v", "v", nil), ("k%5Fy=v", "v", nil), ("a=1&%6b_%79=a%2Bb+c%zz%", "a%2Bb+c%zz%", "a+b+c%zz%"),
            ("k_y=", "", nil), ("k_y", nil, nil), ("k_yy=v", nil, nil), ("k%5=v", nil, nil), ("k_y%3Dv", nil, nil),
            ("K_Y=v", nil, nil),
        ] as [(String, String?, String?)])
    func parameters(_ query: String, _ value: String?, _ decoded: String?) throws {
        let input = bytes("GET /a?\(query) HTTP/1.1\r\nHost: h\r\n\r\n")
        let head = parse(input, as: RequestHead.self).0
        let found = head.parameter(Array("k_y".utf8), in: input.span)
        #expect(found.map { String(decoding: input[$0.value], as: UTF8.self) } == value)
        guard let found else { return }
        let text = RequestHead.decodedParameter(input.span, found.value)
        #expect(text.map { String(decoding: $0, as: UTF8.self) } == decoded)
    }
}
