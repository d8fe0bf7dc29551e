"use strict";

// ---- a value is rounded to the place of its error: the rule of results/numbers.py ----

/** A formatter of numbers with `digits` significant figures, however small. */
function writer(digits) {
  const rule = { minimumSignificantDigits: digits, maximumSignificantDigits: digits, useGrouping: false };
  return new Intl.NumberFormat("en", rule).format;
}
const significant = writer(3);

/** A number without an error. */
const number = (value) => (value === null ? "–" : significant(value || 0));

/** Number of decimals of an error: it has one significant figure, or two if the first is 1. */
function places(error) {
  const [figures, power] = error.toExponential(1).split("e");
  return (figures[0] === "1" ? 1 : 0) - Number(power);
}

function fixed(value, decimals) {
  const unit = 10 ** Math.max(0, -decimals); // errors of tens and more
  const text = (Math.round(value / unit) * unit).toFixed(0);
  return decimals < 0 ? text : value.toFixed(decimals).replace(/^-(?=[0.]*$)/, ""); // no minus before a zero
}

/** The value alone; the number as it is if the error is 0 or not known. */
const toError = (value, error) => (value === null || !error ? number(value) : fixed(value, places(error)));

/** "± 0.003"; "binning ≤ 0.004" for a bound; "" if there is no error. */
function errorText(error, isBound = false) {
  if (error === null || error === undefined) return "";
  return `${isBound ? "binning ≤" : "±"} ${error ? fixed(error, places(error)) : "0"}`;
}
