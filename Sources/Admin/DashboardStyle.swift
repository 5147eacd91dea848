extension Dashboard {
    /// Dark unless the system or the reader wants light. Colours say the same as the words beside them.
    static let style = #"""
        :root {
          --ground: #0c1116; --card: #141b22; --line: #232d37; --text: #e4ebf1; --muted: #8b9aa8; --faint: #5b6977;
          --water: #4fb3ff; --good: #45c88a; --warn: #f0b13c; --bad: #ff6b6b; --violet: #b197fc;
          --fill: rgba(79, 179, 255, .13); --hover: #19222b;
        }
        :root[data-theme="light"] {
          --ground: #f3f6f9; --card: #ffffff; --line: #dfe6ec; --text: #17212b; --muted: #5c6b79; --faint: #93a1ae;
          --water: #0b76d1; --good: #12814a; --warn: #a56700; --bad: #cf2f36; --violet: #7048e8;
          --fill: rgba(11, 118, 209, .09); --hover: #f6f9fb;
        }
        * { box-sizing: border-box; }
        html { -webkit-text-size-adjust: 100%; }
        body {
          margin: 0 auto; max-width: 1440px; padding: 0 20px 32px; background: var(--ground); color: var(--text);
          font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
          font-variant-numeric: tabular-nums;
        }
        [hidden] { display: none !important; }
        header { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center;
          justify-content: space-between; padding: 16px 0; }
        .brand { display: flex; gap: 10px; align-items: center; min-width: 0; max-width: 100%; }
        .brand svg { width: 28px; height: 28px; flex: none; }
        .brand path { fill: none; stroke-width: 2.6; stroke-linecap: round; }
        .gate { stroke: var(--muted); }
        .water { stroke: var(--water); }
        h1 { margin: 0; font-size: 19px; letter-spacing: -.01em; }
        #self { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
        .status { display: flex; gap: 8px; align-items: center; }
        h2 { margin: 0 0 10px; font-size: 14px; font-weight: 650; }
        h3 { margin: 18px 0 8px; font-size: 13px; font-weight: 650; }
        small, .muted { color: var(--muted); font-size: 12px; font-weight: 400; }
        button { border: 1px solid var(--line); border-radius: 8px; background: var(--card); color: var(--muted);
          width: 32px; height: 28px; font-size: 15px; cursor: pointer; padding: 0; }
        button:hover, button:focus-visible { color: var(--text); border-color: var(--faint); }
        .pill { display: inline-flex; align-items: center; gap: 6px; padding: 2px 10px; border-radius: 99px;
          border: 1px solid var(--line); background: var(--card); font-size: 12px; white-space: nowrap; }
        .pill:empty { display: none; }
        .pill::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: var(--faint); }
        .pill.good::before { background: var(--good); }
        .pill.warn::before { background: var(--warn); }
        .pill.bad::before { background: var(--bad); }
        .pill.bad { color: var(--bad); }
        .pill.warn { color: var(--warn); }
        #stale, #warnings { margin: 0 0 14px; padding: 10px 14px; border-radius: 10px; list-style: none;
          border: 1px solid var(--warn); color: var(--warn); background: var(--card); }
        .stale main, .stale #warnings, .stale footer { opacity: .45; filter: grayscale(1); }
        #stale { border-color: var(--bad); color: var(--bad); }
        main { display: grid; grid-template-columns: repeat(12, minmax(0, 1fr)); gap: 14px; }
        .card { grid-column: span 6; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
          padding: 14px 16px; min-width: 0; }
        .full { grid-column: 1 / -1; }
        .third { grid-column: span 4; }
        #tiles { grid-column: 1 / -1; display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 14px; }
        .tile { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 12px 16px 10px;
          min-width: 0; }
        .tile .name { color: var(--muted); font-size: 12px; }
        .tile .value { font-size: 26px; line-height: 1.25; font-weight: 650; letter-spacing: -.02em;
          white-space: nowrap; }
        .tile .value small { font-size: 13px; letter-spacing: 0; }
        .tile .more { color: var(--muted); font-size: 12px; white-space: nowrap; overflow: hidden;
          text-overflow: ellipsis; }
        .bad-text { color: var(--bad); }
        .warn-text { color: var(--warn); }
        .good-text { color: var(--good); }
        .legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 12px; color: var(--muted);
          min-height: 18px; }
        .legend b { color: var(--text); font-weight: 600; }
        .legend i { display: inline-block; width: 10px; height: 3px; border-radius: 2px; margin-right: 6px;
          vertical-align: middle; }
        .chart { height: 190px; margin-top: 6px; position: relative; touch-action: pan-y; }
        .chart svg { width: 100%; height: 100%; display: block; }
        .chart text { fill: var(--muted); font-size: 11px; }
        .chart .grid { stroke: var(--line); }
        .chart .cursor { stroke: var(--faint); stroke-dasharray: 3 3; }
        .chart .series { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
        .chart .area { stroke: none; fill: var(--fill); }
        .c-water { stroke: var(--water); background: var(--water); }
        .c-bad { stroke: var(--bad); background: var(--bad); }
        .c-warn { stroke: var(--warn); background: var(--warn); }
        .c-good { stroke: var(--good); background: var(--good); }
        .c-violet { stroke: var(--violet); background: var(--violet); }
        table { width: 100%; border-collapse: collapse; }
        th { text-align: left; font-size: 12px; font-weight: 500; color: var(--muted); padding: 4px 12px 6px 0;
          border-bottom: 1px solid var(--line); white-space: nowrap; }
        td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
        tr:last-child td { border-bottom: 0; }
        td.number, th.number { text-align: right; white-space: nowrap; }
        td:last-child, th:last-child { padding-right: 0; }
        .name-cell { font-weight: 600; overflow-wrap: anywhere; }
        .reason { color: var(--muted); font-size: 12px; overflow-wrap: anywhere; }
        .mono { font-family: ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; font-size: 12.5px;
          overflow-wrap: anywhere; }
        .service { border: 1px solid var(--line); border-radius: 10px; margin-top: 10px; overflow: hidden; }
        .service > .head { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; padding: 9px 12px;
          background: var(--hover); border-bottom: 1px solid var(--line); }
        .service > .head b { font-size: 14px; }
        .service > .head .numbers { margin-left: auto; display: flex; flex-wrap: wrap; gap: 2px 16px;
          font-size: 12px; color: var(--muted); }
        .service .numbers b { font-size: 12px; color: var(--text); }
        .service .body { padding: 2px 12px; }
        .service table { table-layout: fixed; }
        .service th:nth-child(1) { width: 23%; }
        .service th:nth-child(2) { width: 14%; }
        .service th:nth-child(3) { width: 11%; }
        .service th:nth-child(n+4) { width: 9%; }
        .service th:nth-child(6) { width: 12%; }
        .service th:nth-child(7) { width: 22%; padding-left: 12px; }
        .service td:nth-child(7) { padding-left: 12px; }
        .meter { height: 6px; border-radius: 3px; background: var(--line); overflow: hidden; margin-top: 7px;
          min-width: 60px; display: flex; }
        .meter span { height: 100%; background: var(--water); }
        .meter span.warn { background: var(--warn); }
        .meter span.bad { background: var(--bad); }
        .person { display: grid; grid-template-columns: minmax(0, 1fr) 120px 104px; gap: 2px 12px;
          align-items: center; padding: 4px 0; }
        .person .amount { text-align: right; white-space: nowrap; }
        .share-cell { width: 90px; }
        .person .meter { margin: 0; }
        #events { list-style: none; margin: 0; padding: 0; max-height: 380px; overflow: auto; }
        #events li { display: grid; grid-template-columns: 72px 66px minmax(0, 1fr); gap: 10px; padding: 6px 0;
          border-bottom: 1px solid var(--line); }
        #events li:last-child { border-bottom: 0; }
        #events time { color: var(--muted); }
        #events .fields { color: var(--muted); font-size: 12px; overflow-wrap: anywhere; }
        #events .message { overflow-wrap: anywhere; }
        .empty { color: var(--muted); padding: 6px 0; }
        footer { padding: 16px 2px 0; }
        @media (max-width: 1000px) {
          #tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); }
          .card { grid-column: 1 / -1; }
        }
        @media (max-width: 620px) {
          body { padding: 0 12px 24px; }
          header { padding: 12px 0; }
          main, #tiles { gap: 10px; }
          #tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
          .card { padding: 12px; }
          .tile { padding: 10px 12px 8px; }
          .tile .value { font-size: 22px; }
          .chart { height: 160px; }
          .service > .head .numbers { margin-left: 0; width: 100%; }
          table, tbody { display: block; }
          thead { display: none; }
          tr { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; padding: 9px 0;
            border-bottom: 1px solid var(--line); }
          tr:last-child { border-bottom: 0; }
          td, .service td:nth-child(7) { border: 0; padding: 0; }
          td.number .meter { display: none; }
          td.number > div { display: inline; }
          td.share-cell { width: 100%; }
          td.share-cell .meter { margin: 2px 0; }
          .person { grid-template-columns: minmax(0, 1fr) auto; padding: 6px 0; }
          .person .meter { grid-row: 2; grid-column: 1 / -1; }
          .person .amount { grid-row: 1; grid-column: 2; }
          td.name-cell { width: 100%; }
          td.wide-cell { width: 100%; }
          td.number { text-align: left; }
          td.number[data-label]::before { content: attr(data-label) " "; color: var(--muted); font-size: 12px; }
          #events li { grid-template-columns: 64px minmax(0, 1fr); }
          #events li > .text { grid-column: 1 / -1; }
        }

        """#
}
