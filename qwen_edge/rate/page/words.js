// @ts-check
// The texts of the page, in English and Chinese.

const english = {
  title: "Rate answers",
  progress: "Progress",
  intro: "You see answers of language models to the same questions, without the names of the models. Rate each from 1 (bad) to 5 (good). You can stop at any time: under the same name, you go on where you stopped.",
  name: "Your name",
  begin: "Begin",
  question: "Question",
  reference: "What a right answer says",
  answer: "Answer",
  cut: "The answer reached the largest length and was cut off here.",
  relevance: "Relevance",
  fluency: "Fluency",
  accuracy: "Accuracy",
  coherence: "Coherence",
  relevanceHelp: "It answers the question, and nothing else",
  fluencyHelp: "Its language is correct and natural",
  accuracyHelp: "What it says is true",
  coherenceHelp: "Its parts fit together",
  remark: "Remark (optional)",
  back: "Back",
  skip: "Skip",
  save: "Save and go on",
  keys: "Keys: 1 to 5 rate the chosen line and go to the next one; Enter saves.",
  thanks: "Thank you",
  again: "Go back to the answers",
  missing: "Rate this line from 1 to 5: ",
  saved: "Saved.",
  offline: "The server does not answer. Nothing is lost: try again.",
  where: (/** @type {number} */ number, /** @type {number} */ of, /** @type {number} */ place, /** @type {number} */ places) =>
    `Answer ${number} of ${of} (${place} of ${places} to this question)`,
  count: (/** @type {number} */ rated, /** @type {number} */ of) => `${rated} of ${of} rated`,
  summary: (/** @type {number} */ rated, /** @type {number} */ of, /** @type {number} */ skipped) =>
    `You have rated ${rated} of ${of} answers` + (skipped ? ` and skipped ${skipped}.` : "."),
};

/** @type {typeof english} */
const chinese = {
  title: "为回答打分",
  progress: "进度",
  intro: "您将看到不同语言模型对同一问题的回答，但看不到模型的名字。请从 1（差）到 5（好）为每个回答打分。随时可以停下：用同一个名字再来，就从上次的地方继续。",
  name: "您的名字",
  begin: "开始",
  question: "问题",
  reference: "参考答案",
  answer: "回答",
  cut: "回答达到长度上限，在此处被截断。",
  relevance: "相关性",
  fluency: "流畅性",
  accuracy: "准确性",
  coherence: "连贯性",
  relevanceHelp: "回答了问题，没有多余内容",
  fluencyHelp: "语言正确、自然",
  accuracyHelp: "内容真实无误",
  coherenceHelp: "前后一致、条理清楚",
  remark: "备注（可不填）",
  back: "上一个",
  skip: "跳过",
  save: "保存并继续",
  keys: "按键：1 到 5 为当前一行打分并跳到下一行；回车保存。",
  thanks: "谢谢",
  again: "返回查看回答",
  missing: "请为这一行打 1 到 5 分：",
  saved: "已保存。",
  offline: "服务器没有响应。数据没有丢失，请重试。",
  where: (number, of, place, places) => `第 ${number} 个回答，共 ${of} 个（本题第 ${place} 个，共 ${places} 个）`,
  count: (rated, of) => `已评 ${rated} / ${of}`,
  summary: (rated, of, skipped) => `您已评 ${rated} 个回答，共 ${of} 个` + (skipped ? `，跳过 ${skipped} 个。` : "。"),
};

/** Whether the browser prefers Chinese. */
export const isChinese = (navigator.languages?.[0] ?? navigator.language ?? "en").toLowerCase().startsWith("zh");

/** The texts in the language of the browser. */
export const words = isChinese ? chinese : english;
