import Primitives
import Testing

@testable import Configuration

@Suite("Variables")
struct InterpolationTests {
    static let environment = ["A": "x", "EMPTY": "", "B_2": "${A}", "YAML": "a: [1"]

    @Test(
        "what stands for what",
        arguments: [
            ("", ""), ("plain", "plain"), ("${A}", "x"), ("<${A}${A}>", "<xx>"), ("${EMPTY}", ""), ("${NONE:-d}", "d"),
            ("${EMPTY:-d}", "d"), ("${A:-d}", "x"), ("${NONE:-}", ""), ("${NONE:-a:-b $$}", "a:-b $$"), ("$$", "$"),
            ("$${A}", "${A}"), ("$$$$", "$$"), ("${B_2}", "${A}"), ("${YAML}", "a: [1"), ("ä${A}ö", "äxö"), ("}", "}"),
        ])
    func expands(_ text: String, _ expected: String) throws {
        #expect(try Interpolation.expand(text, environment: Self.environment) == expected)
    }

    @Test(
        "what is no variable",
        arguments: [
            ("${NONE}", "the variable NONE is not set; set it, or write ${NONE:-default}"),
            ("${A", "`${` without `}`; write ${NAME}, or $$ for a dollar sign"),
            ("$A", "a lone `$`; write ${NAME} for a variable, or $$ for a dollar sign"),
            ("a$", "a lone `$`; write ${NAME} for a variable, or $$ for a dollar sign"),
            ("${}", "`${}` is no variable; write ${NAME} or ${NAME:-default}"),
            ("${1A}", "`${1A}` is no variable; write ${NAME} or ${NAME:-default}"),
            ("${A-d}", "`${A-d}` is no variable; write ${NAME} or ${NAME:-default}"),
            ("${Ä}", "`${Ä}` is no variable; write ${NAME} or ${NAME:-default}"),
            ("${NONE:-${A}}", "a default can not hold another variable; write its value"),
        ])
    func refuses(_ text: String, _ expected: String) {
        let result = outcome { () throws(Invalid) in
            try Interpolation.expand(text, environment: Self.environment)
        }
        #expect(result == .failure(Refusal(message: expected)))
    }

    @Test("variables stand in any value, and their content is never structure")
    func values() throws {
        let text = """
            gateway: {port: "127.0.0.1:${PORT}", timeout: "${T:-3}", admin: "${ADMIN:-}", via: "${VIA}"}
            services:
              - {name: a, path: "/${P}", instances: ["http://${HOST}:1"]}
            """
        let environment = ["PORT": "81", "P": "x", "HOST": "h", "VIA": "null"]
        let configuration = try parse(text, environment: environment)
        #expect(configuration.gateway.port.port == 81)
        #expect(configuration.gateway.timeout == .seconds(3))
        #expect(configuration.gateway.admin == nil)
        #expect(configuration.gateway.via == "null")
        #expect(configuration.services[0].instances[0].url == "http://h:1")

        let injected = errors(text, environment: environment.merging(["HOST": "h}, x: {"]) { $1 })
        #expect(injected.count == 1)
        #expect(injected[0].hasPrefix("f:3:"))
    }

    @Test("an undefined variable is one error, and nothing is said to be missing because of it")
    func undefined() {
        let text = "services: [{name: \"${N}\", path: /a, instances: [\"${I}\"]}]"
        #expect(
            errors(text) == [
                "f:1:19: services[0].name: the variable N is not set; set it, or write ${N:-default}",
                "f:1:49: services[0].instances[0]: the variable I is not set; set it, or write ${I:-default}",
            ])
    }

    @Test("an error about a variable under a hostile key stays one line")
    func hostileKey() {
        let expected = "f:1:16: `a\u{fffd}b`: the variable N is not set; set it, or write ${N:-default}"
        #expect(errors("{\"a\\eb\":       \"${N}\"}").contains(expected))
    }

    @Test("a variable behind an override need not exist")
    func overridden() throws {
        let text = file(gateway: "  port: ${PORT}")
        #expect(try parse(text, ["gateway.port=:81"]).gateway.port.port == 81)
        #expect(try parse(text, ["gateway.port=:${P}"], environment: ["P": "82"]).gateway.port.port == 82)
    }
}
