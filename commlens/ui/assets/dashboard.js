// The theme that was chosen by hand, kept by the browser; without one the system's holds.
(function () {
  "use strict";
  var key = "commlens-theme";
  function dark() { return window.matchMedia("(prefers-color-scheme: dark)").matches; }
  function kept() { try { return window.localStorage.getItem(key); } catch (error) { return null; } }
  function keep(name) { try { window.localStorage.setItem(key, name); } catch (error) { /* not kept */ } }
  function show(name) { if (name) { document.documentElement.dataset.theme = name; } }
  show(kept());
  window.commlens = {
    // The address says what was chosen. An answer that comes after another run was opened says nothing of that one.
    follow: function (link, run) {
      if (!link || new URLSearchParams(link).get("run") !== run) { return; }
      window.history.replaceState(window.history.state, "", window.location.pathname + link);
    },
    theme: function (clicks) {
      if (clicks) {
        var now = document.documentElement.dataset.theme || (dark() ? "dark" : "light");
        show(now === "dark" ? "light" : "dark");
        keep(document.documentElement.dataset.theme);
      }
      return "light or dark page";
    }
  };
})();
