import { useCallback, useEffect, useRef, useState } from "react";
import { type AutoRetry, autoRetry } from "./autoRetry";
import { fetchModels, KeyNeeded, toSentence } from "./server";

const CHOICE = "openai-compat.model";

/** The models of the server, the chosen one ("" for the server's default), and the problem if there is one. */
export interface Models {
  names: string[];
  chosen: string;
  choose: (name: string) => void;
  isLoading: boolean;
  problem: string | null;
  needsKey: boolean;
  reload: () => void;
}

type List = Pick<Models, "names" | "isLoading" | "problem" | "needsKey">;

const LOADING: List = { names: [], isLoading: true, problem: null, needsKey: false };

export function useModels(): Models {
  const [list, setList] = useState(LOADING);
  const [preferred, setPreferred] = useState("");
  const retry = useRef<AutoRetry>(null);

  useEffect(() => setPreferred(localStorage.getItem(CHOICE) ?? ""), []);

  useEffect(() => {
    const started = autoRetry(
      fetchModels,
      (names) => setList({ ...LOADING, names, isLoading: false }),
      (error) => {
        const needsKey = error instanceof KeyNeeded;
        const problem = needsKey ? null : `${toSentence(error)} The list of models is requested again automatically.`;
        setList({ names: [], isLoading: !needsKey, problem, needsKey });
        return !needsKey; // with a missing key, the user reloads
      },
    );
    retry.current = started;
    return started.stop;
  }, []);

  const choose = useCallback((name: string) => {
    localStorage.setItem(CHOICE, name);
    setPreferred(name);
  }, []);
  const reload = useCallback(() => retry.current?.reload(), []);

  // A model that no longer exists is not requested.
  return { ...list, chosen: list.names.includes(preferred) ? preferred : "", choose, reload };
}
